/*
 * One error: a code for the program, a sentence for the person.
 *
 * The caller owns a `struct err` and passes its address down; the place that fails fills it once, and
 * each floor on the way up may put its context in front, so that a user reads
 * "kernel '/boot/x': not a kernel: ...". NULL is accepted everywhere: then only the code is returned.
 */
#pragma once

enum err_kind {
	ERR_HOST,   /* the host lacks or refuses something: no /dev/kvm, no memory, a failed system call */
	ERR_CONFIG, /* what the user asked for cannot be: a bad value, a file that is not a kernel */
	ERR_KVM,    /* KVM refused an operation that it should support, or the guest cannot run on it */
};

struct err {
	int code; /* -errno; 0 while unset */
	enum err_kind kind;
	char text[512];
};

/* Fill `err` (kind ERR_HOST) and return `code`, so that callers write `return err_set(...)`. [any] */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The same with kind ERR_CONFIG or ERR_KVM. */
int err_config(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int err_kvm(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Put "context: " in front of the sentence; code and kind stay. Returns err->code (-EIO when err is NULL). */
int err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The words of errno value `code`, negative or positive. [any] */
const char *err_name(int code);
