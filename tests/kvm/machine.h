/* A VM under test: one of guests/ with its serial port and debug console on pipes, and threads that read them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmlet.h>

/* --- a reader of a descriptor, on a thread of its own --- */
struct pump;

struct pump_pace {
	unsigned stall_ms; /* before the first read */
	unsigned pause_us; /* before each read ... */
	size_t chunk;      /* ... of so many bytes; 0: as many as there are */
};

/* Reads `fd` to its end and closes it. */
struct pump *pump_start(int fd, struct pump_pace pace);
/* Until `text` has come so many times. */
bool pump_wait(struct pump *pump, const char *text, unsigned times, unsigned timeout_ms);
size_t pump_size(struct pump *pump);
/* Waits for the end of file; then the text (NUL-terminated) can be had. */
const char *pump_finish(struct pump *pump);
void pump_free(struct pump *pump);

/* --- a machine --- */
struct machine {
	struct vmlet_config config; /* may be changed before machine_start */
	char kernel[4096];
	struct vmlet *vm;
	struct vmlet_result result;
	struct pump *serial, *debugcon;
	int serial_in;   /* the test writes the guest's input here; -1 once closed */
	int borrowed[3]; /* the VM's ends of the pipes */
	int read_fds[2]; /* ours: the pumps take them over */
	struct pump_pace pace;
	struct vmlet_error error;
	char log[8192]; /* everything that it logged */
};

/* The path of a guest, in static storage of the caller's. */
void guest_path(char *ret_path, size_t size, const char *guest);

/* Defaults and pipes; `cmdline` may be NULL. */
void machine_init(struct machine *machine, const char *guest, const char *cmdline);
void machine_start(struct machine *machine); /* vmlet_new and vmlet_start; fails the test when they fail */
/* Serves it, by vmlet_dispatch, until `text` has come out of the serial port; a machine that ends before, or 20 s,
 * fail. */
void machine_serve_until(struct machine *machine, const char *text);
void machine_serve_until_times(struct machine *machine, const char *text, unsigned times);
void machine_serve_ms(struct machine *machine, unsigned ms); /* so long; it must not end */
void machine_run(struct machine *machine); /* vmlet_run until the end; the output goes on until the pipes close */
void machine_end(struct machine *machine); /* vmlet_free, end the input and read the output to its end */
void machine_free(struct machine *machine);

/* All of it, then that end. */
void machine_expect(struct machine *machine, enum vmlet_end end, uint32_t value);
const char *machine_output(const struct machine *machine); /* after machine_end */
const char *machine_debug_output(const struct machine *machine);

const char *end_name(enum vmlet_end end);

/* Writes everything, or fails the test. */
void write_all(int fd, const void *data, size_t size);

/* A file of `size` bytes in the test's own directory, which goes when the test ends well. */
const char *temp_dir(void);
void temp_path(char *ret_path, size_t size, const char *name);
void temp_remove(void);
void write_file(const char *path, const void *data, size_t size);

/* How many descriptors and threads this process has. */
unsigned count_fds(void);
unsigned count_threads(void);

uint64_t now_ms(void);
void sleep_ms(unsigned ms);
