#include "street.h"

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

int street_open(struct street *street, const struct vmlet_config *config, struct loop *loop, const struct log *log,
		void (*serial_started)(void *ctx), void *ctx, struct err *err)
{
	*street = (struct street){0};
	street->serial = open_console(&config->serial, loop, log, err);
	if (!street->serial)
		return err->code;
	chr_on_output(street->serial, serial_started, ctx);
	street->debugcon = open_console(&config->debugcon, loop, log, err);
	if (!street->debugcon)
		return err->code;
	return config->streams.enabled ? open_streams(street, &config->streams, loop, log, err) : 0;
}

void street_close(struct street *street)
{
	chr_free(street->serial);
	chr_free(street->debugcon);
	chr_free(street->in);
	chr_free(street->out);
	chr_free(street->err);
	*street = (struct street){0};
}

size_t street_streams_pending(const struct street *street)
{
	return street->out ? chr_pending(street->out) + chr_pending(street->err) : 0;
}

size_t street_pending(const struct street *street)
{
	return chr_pending(street->serial) + chr_pending(street->debugcon) + street_streams_pending(street);
}
