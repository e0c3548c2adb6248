/* Probing a kernel file that a test has built, and the sentence of its refusal. */
#pragma once

#include "test_loader_images.h"

static const char path[] = "/boot/k";
static struct blob blob;

static inline int probe(enum boot_protocol protocol, enum kernel_kind *ret_kind, struct err *err)
{
	struct image image = image_make(path, blob.bytes, blob.size_bytes);
	int rc = kernel_probe(&image, protocol, ret_kind, err);
	image_close(&image);
	return rc;
}

static inline void expect_kind(enum boot_protocol protocol, enum kernel_kind kind)
{
	struct err err = {0};
	enum kernel_kind found = (enum kernel_kind)99;
	int rc = probe(protocol, &found, &err);
	if (rc < 0)
		fail_msg("%s", err.text);
	assert_int_equal(found, kind);
}

/* Refused with a sentence that begins with the file's name and contains `part`. */
static inline void expect_refused_as(enum boot_protocol protocol, int code, const char *part)
{
	struct err err = {0};
	enum kernel_kind kind = (enum kernel_kind)99;
	assert_int_equal(probe(protocol, &kind, &err), code);
	assert_int_equal(err.code, code);
	assert_int_equal(err.kind, ERR_CONFIG);
	assert_int_equal(kind, 99);
	assert_int_equal(strncmp(err.text, "kernel '/boot/k': ", 18), 0);
	if (!strstr(err.text, part))
		fail_msg("'%s' does not say '%s'", err.text, part);
	assert_int_equal(probe(protocol, &kind, NULL), code);
}

static inline void expect_refused(const char *part)
{
	expect_refused_as(BOOT_AUTO, -ENOEXEC, part);
}

static inline void blob_text(const char *text)
{
	blob.size_bytes = 0;
	memset(blob.bytes, 0, sizeof(blob.bytes));
	blob_put_text(&blob, 0, text);
}
