"""Small tables, and targets that are hit or missed."""

import os
import platform
import time


class Report:
    def __init__(self):
        self.figures = []
        self.missed = 0

    def conditions(self):
        load = " ".join(f"{value:.1f}" for value in os.getloadavg())
        print(f"{time.strftime('%Y-%m-%d %H:%M')}  {os.cpu_count()} CPUs, Linux {platform.release()}, load {load}")

    def table(self, title, header, rows):
        widths = [max(map(len, column)) for column in zip(header, *rows)]
        numeric = [all(cell[:1].isdigit() for cell in column) for column in zip(*rows)]
        print(f"\n{title}")
        for row in [header, *rows]:
            cells = [cell.rjust(width) if right else cell.ljust(width)
                     for cell, width, right in zip(row, widths, numeric)]
            print("  " + "  ".join(cells).rstrip())
        self.figures.append({"title": title, "header": header, "rows": rows})

    def _target(self, what, value, relation, limit, hit):
        print(f"  {'pass' if hit else 'MISS'}: {what}: {value:.2f} (target: {relation} {limit:g})", flush=True)
        self.missed += not hit

    def at_most(self, what, value, limit):
        self._target(what, value, "at most", limit, value <= limit)

    def at_least(self, what, value, limit):
        self._target(what, value, "at least", limit, value >= limit)
