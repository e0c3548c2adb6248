#include "relay.h"

#include <asm/errno.h>
#include <asm/poll.h>
#include <asm/signal.h>

#include "port.h"

enum {
	BUFFER_BYTES = 64 << 10,
	LEFT_BYTES_MAX = 1 << 20, /* as much as a pipe may hold when its last writer has ended */
	INPUT_POLL_MIN_MS = 1,
	INPUT_POLL_MAX_MS = 20,
	ROOM_POLL_MS = 1,
	CTRL_D = 4,
};

struct output {
	int fd; /* -1: over */
	enum port_stream stream;
	size_t begin, end; /* of what waits in the buffer */
	uint8_t buffer[BUFFER_BYTES];
};

struct input {
	int fd;     /* -1: nobody reads it */
	bool ended; /* there is no more than what waits in the buffer */
	int poll_ms;
	size_t begin, end;
	uint8_t buffer[BUFFER_BYTES];
};

struct relay {
	struct command *command;
	bool terminal;
	bool ended; /* the command has */
	int status;
	size_t left_bytes; /* that are still taken from its pipes then */
	struct output out, err;
	struct input in;
};

/* --- output ----------------------------------------------------------------------------------------------- */

static bool output_waits(const struct output *output)
{
	return output->begin < output->end;
}

/* The terminal's descriptor is input too, and stays. */
static void output_close(struct relay *relay, struct output *output)
{
	if (output->fd != relay->in.fd)
		SYS_1(close, output->fd);
	output->fd = -1;
	output->begin = output->end = 0;
}

static bool output_fill(struct relay *relay, struct output *output)
{
	size_t size = sizeof(output->buffer);
	long n;

	if (relay->ended && size > relay->left_bytes)
		size = relay->left_bytes;
	if (output->fd < 0 || size == 0)
		return false;
	n = SYS_3(read, output->fd, output->buffer, size);
	if (n == -EAGAIN || n == -EINTR)
		return false;
	if (n <= 0) {
		output_close(relay, output);
		return false;
	}
	if (relay->ended)
		relay->left_bytes -= (size_t)n;
	output->begin = 0;
	output->end = (size_t)n;
	return true;
}

/* True when something moved. A reader that is gone is one for the command too: it gets a SIGPIPE. */
static bool output_move(struct relay *relay, struct output *output)
{
	long n;

	if (!output_waits(output) && !output_fill(relay, output))
		return false;
	n = port_write(output->stream, output->buffer + output->begin, output->end - output->begin);
	if (n < 0)
		output_close(relay, output);
	else
		output->begin += (size_t)n;
	return n != 0;
}

/* --- input ------------------------------------------------------------------------------------------------ */

static void input_close(struct relay *relay)
{
	struct input *in = &relay->in;

	if (in->fd >= 0 && !relay->terminal)
		SYS_1(close, in->fd);
	in->fd = -1;
	in->begin = in->end = 0;
}

static void input_end(struct relay *relay)
{
	struct input *in = &relay->in;

	in->ended = true;
	if (relay->terminal) {
		in->buffer[in->end++] = CTRL_D; /* the buffer is empty here */
		return;
	}
	input_close(relay);
}

/* Looked at after the read: an end that is seen before may be older than bytes that came since. */
static void input_look(struct relay *relay, bool came)
{
	struct input *in = &relay->in;
	struct port_status status = port_status();

	if (relay->terminal && status.size_changed)
		command_set_size(relay->command, port_size());
	if (!came && status.input_ended)
		input_end(relay);
	in->poll_ms *= 2;
	if (came)
		in->poll_ms = INPUT_POLL_MIN_MS;
	else if (in->poll_ms > INPUT_POLL_MAX_MS)
		in->poll_ms = INPUT_POLL_MAX_MS;
}

static bool input_fill(struct relay *relay)
{
	struct input *in = &relay->in;

	if (in->ended || in->fd < 0)
		return false;
	in->begin = 0;
	in->end = port_read(in->buffer, sizeof(in->buffer));
	input_look(relay, in->end > 0);
	return in->end > 0;
}

static bool input_move(struct relay *relay)
{
	struct input *in = &relay->in;
	long n;

	if (in->begin == in->end && !input_fill(relay))
		return false;
	n = SYS_3(write, in->fd, in->buffer + in->begin, in->end - in->begin);
	if (n == -EAGAIN || n == -EINTR)
		return false;
	if (n < 0)
		input_close(relay);
	else
		in->begin += (size_t)n;
	return true;
}

/* --- waiting ---------------------------------------------------------------------------------------------- */

static struct pollfd watch(int fd, bool wanted, short events)
{
	return (struct pollfd){.fd = wanted ? fd : -1, .events = events};
}

static int timeout_ms(const struct relay *relay)
{
	if (output_waits(&relay->out) || output_waits(&relay->err))
		return ROOM_POLL_MS;
	if (relay->in.fd < 0 || relay->in.ended)
		return -1;
	return relay->in.poll_ms;
}

/* SIGCHLD comes only here. */
static void wait(const struct relay *relay)
{
	const struct input *in = &relay->in;
	bool input_waits = in->begin < in->end;
	struct pollfd fds[] = {
		watch(relay->out.fd, !output_waits(&relay->out), POLLIN),
		watch(relay->err.fd, !output_waits(&relay->err), POLLIN),
		watch(in->fd, input_waits || !relay->terminal, input_waits ? POLLOUT : 0),
	};
	static const uint64_t no_signals;
	int ms = timeout_ms(relay);
	const long time[2] = {0, ms * 1000000L};

	SYS_5(ppoll, fds, sizeof(fds) / sizeof(fds[0]), ms < 0 ? NULL : time, &no_signals, sizeof(no_signals));
	if (!input_waits && (fds[2].revents & POLLERR))
		input_close((struct relay *)relay);
}

/* --- signals ---------------------------------------------------------------------------------------------- */

void relay_restore(void);
__asm__("relay_restore:\n\t"
	"mov $15, %eax\n\t" /* rt_sigreturn */
	"syscall");

static void do_nothing(int signo)
{
	(void)signo;
}

/* A signal without a handler would not wake us. */
static void catch_sigchld(void)
{
	const struct sigaction action = {
		.sa_handler = do_nothing, .sa_flags = SA_RESTORER, .sa_restorer = relay_restore};
	const uint64_t mask = 1UL << (SIGCHLD - 1);

	SYS_4(rt_sigprocmask, SIG_BLOCK, &mask, NULL, sizeof(mask));
	SYS_4(rt_sigaction, SIGCHLD, &action, NULL, sizeof(mask));
}

/* --- the whole -------------------------------------------------------------------------------------------- */

static bool move(struct relay *relay)
{
	bool moved = output_move(relay, &relay->out);

	moved |= output_move(relay, &relay->err);
	if (!relay->ended)
		moved |= input_move(relay);
	return moved;
}

int relay_run(struct command *command)
{
	static struct relay relay;

	relay.command = command;
	relay.terminal = command->in == command->out;
	relay.left_bytes = LEFT_BYTES_MAX;
	relay.out.fd = command->out;
	relay.out.stream = PORT_OUT;
	relay.err.fd = command->err;
	relay.err.stream = PORT_ERR;
	relay.in.fd = command->in;
	relay.in.poll_ms = INPUT_POLL_MIN_MS;
	catch_sigchld();
	for (;;) {
		relay.ended |= command_reap(command, &relay.status);
		if (move(&relay))
			continue;
		if (relay.ended && !output_waits(&relay.out) && !output_waits(&relay.err))
			return relay.status;
		wait(&relay);
	}
}
