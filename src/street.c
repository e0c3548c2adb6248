#include "street.h"

#include <errno.h>
#include <stdlib.h>

static struct chr *open_kind(const struct vmlet_serial *serial, struct loop *loop, const struct log *log,
			     struct err *err)
{
	struct chr_filter filter = {serial->input_filter, serial->input_filter_ctx};
	switch (serial->kind) {
	case VMLET_SERIAL_FD:
		return chr_fd_new(loop, log, serial->in_fd, serial->out_fd, filter, err);
	case VMLET_SERIAL_FILE:
		return chr_file_new(loop, log, serial->path, err);
	case VMLET_SERIAL_PTY:
		return chr_pty_new(loop, log, err);
	case VMLET_SERIAL_UNIX:
		return chr_unix_new(loop, log, serial->path, err);
	default:
		return chr_null_new(loop, log, err);
	}
}

static struct chr *open_console(const struct vmlet_serial *serial, struct loop *loop, const struct log *log,
				struct err *err)
{
	struct chr *chr = open_kind(serial, loop, log, err);
	if (!chr)
		return NULL;
	chr_set_tap(chr, (struct chr_tap){serial->output_tap, serial->output_tap_ctx});
	return chr;
}

/* --- virtio consoles ------------------------------------------------------------------------------------------- */

static int open_port(struct street *street, const struct vmlet_config *config, unsigned index, struct loop *loop,
		     const struct log *log, struct err *err)
{
	const struct vmlet_console *console = config->consoles[index];
	struct virtio_console_port *port = &street->consoles[street->console_count];
	port->chr = open_console(&console->backend, loop, log, err);
	if (!port->chr)
		return err->code;
	port->name = console->name;
	port->rows = console->rows;
	port->columns = console->columns;
	port->limit.bytes_per_s = console->bandwidth_bytes;
	port->limit.bytes_burst = console->bandwidth_burst_bytes;
	street->console_ports[index] = street->console_count++;
	return 0;
}

/* Linux counts hvc0, hvc1, ... in the order of the ports, and only the first can be a console by itself. */
static int open_ports(struct street *street, const struct vmlet_config *config, struct loop *loop,
		      const struct log *log, struct err *err)
{
	unsigned count = (unsigned)config->console_count;
	street->consoles = calloc(count + 1, sizeof(*street->consoles));
	street->console_ports = calloc(count + 1, sizeof(*street->console_ports));
	if (!street->consoles || !street->console_ports)
		return err_set(err, -ENOMEM, "consoles: %s", err_name(ENOMEM));
	for (unsigned named = 0; named <= 1; named++) {
		for (unsigned i = 0; i < count; i++) {
			if ((config->consoles[i]->name != NULL) != (named == 1))
				continue;
			int r = open_port(street, config, i, loop, log, err);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

struct chr *street_console(const struct street *street, int console)
{
	if (console == VMLET_SERIAL_PORT)
		return street->serial;
	if (console < 0 || (unsigned)console >= street->console_count)
		return NULL;
	return street->consoles[street->console_ports[console]].chr;
}

/* --- streams ------------------------------------------------------------------------------------------------------ */

static int open_streams(struct street *street, const struct vmlet_streams *streams, struct loop *loop,
			const struct log *log, struct err *err)
{
	struct chr_filter filter = {streams->input_filter, streams->input_filter_ctx}, none = {0};
	street->in = chr_stream_new(loop, log, streams->in_fd, -1, filter, err);
	if (!street->in)
		return err->code;
	street->out = chr_stream_new(loop, log, -1, streams->out_fd, none, err);
	if (!street->out)
		return err->code;
	street->err = chr_stream_new(loop, log, -1, streams->err_fd, none, err);
	return street->err ? 0 : err->code;
}

/* --- all ---------------------------------------------------------------------------------------------------------- */

int street_open(struct street *street, const struct vmlet_config *config, struct loop *loop, const struct log *log,
		void (*started)(void *ctx), void *ctx, struct err *err)
{
	*street = (struct street){0};
	street->serial = open_console(&config->serial, loop, log, err);
	if (!street->serial)
		return err->code;
	street->debugcon = open_console(&config->debugcon, loop, log, err);
	if (!street->debugcon)
		return err->code;
	int r = open_ports(street, config, loop, log, err);
	if (r < 0)
		return r;
	chr_on_output(street->serial, started, ctx);
	for (unsigned i = 0; i < street->console_count; i++) {
		if (!street->consoles[i].name)
			chr_on_output(street->consoles[i].chr, started, ctx);
	}
	return config->streams.enabled ? open_streams(street, &config->streams, loop, log, err) : 0;
}

void street_close(struct street *street)
{
	chr_free(street->serial);
	chr_free(street->debugcon);
	chr_free(street->in);
	chr_free(street->out);
	chr_free(street->err);
	for (unsigned i = 0; i < street->console_count; i++)
		chr_free(street->consoles[i].chr);
	free(street->consoles);
	free(street->console_ports);
	*street = (struct street){0};
}

/* --- output ---------------------------------------------------------------------------------------------------------
 */

uint64_t street_first_output_ns(const struct street *street)
{
	uint64_t first_ns = chr_first_output_ns(street->serial);
	for (unsigned i = 0; i < street->console_count; i++) {
		uint64_t ns = street->consoles[i].name ? 0 : chr_first_output_ns(street->consoles[i].chr);
		if (ns && (!first_ns || ns < first_ns))
			first_ns = ns;
	}
	return first_ns;
}

uint64_t street_output_bytes(const struct street *street)
{
	uint64_t bytes = chr_output_bytes(street->serial);
	for (unsigned i = 0; i < street->console_count; i++)
		bytes += street->consoles[i].name ? 0 : chr_output_bytes(street->consoles[i].chr);
	return bytes;
}

size_t street_streams_pending(const struct street *street)
{
	return street->out ? chr_pending(street->out) + chr_pending(street->err) : 0;
}

size_t street_pending(const struct street *street)
{
	size_t bytes = chr_pending(street->serial) + chr_pending(street->debugcon) + street_streams_pending(street);
	for (unsigned i = 0; i < street->console_count; i++)
		bytes += chr_pending(street->consoles[i].chr);
	return bytes;
}
