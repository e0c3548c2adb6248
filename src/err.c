#include "err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A host that is out of something is at fault, whatever it was asked for. */
static enum err_kind kind_of(enum err_kind kind, int code)
{
	return code == -ENOMEM || code == -EMFILE || code == -ENFILE ? ERR_HOST : kind;
}

static void fill(struct err *err, enum err_kind kind, int code, const char *fmt, va_list args)
{
	if (!err)
		return;
	err->code = code;
	err->kind = kind_of(kind, code);
	(void)vsnprintf(err->text, sizeof(err->text), fmt, args);
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	fill(err, ERR_HOST, code, fmt, args);
	va_end(args);
	return code;
}

int err_config(struct err *err, int code, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	fill(err, ERR_CONFIG, code, fmt, args);
	va_end(args);
	return code;
}

int err_kvm(struct err *err, int code, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	fill(err, ERR_KVM, code, fmt, args);
	va_end(args);
	return code;
}

int err_wrap(struct err *err, const char *fmt, ...)
{
	if (!err)
		return -EIO;

	char text[sizeof(err->text)];
	va_list args;
	va_start(args, fmt);
	int length = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (length < 0 || (size_t)length >= sizeof(text))
		return err->code;

	(void)snprintf(text + length, sizeof(text) - (size_t)length, ": %.*s", (int)(sizeof(text) - 3), err->text);
	memcpy(err->text, text, sizeof(text));
	return err->code;
}

const char *err_name(int code)
{
	return strerror(code < 0 ? -code : code); /* constant strings, or a buffer of the thread's own */
}
