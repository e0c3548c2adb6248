#include "sys.h"

#include <asm/errno.h>

void *memcpy(void *to, const void *from, size_t size_bytes)
{
	void *at = to;

	__asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(size_bytes) : : "memory");
	return to;
}

void *memset(void *to, int byte, size_t size_bytes)
{
	void *at = to;

	__asm__ volatile("rep stosb" : "+D"(at), "+c"(size_bytes) : "a"(byte) : "memory");
	return to;
}

size_t text_length(const char *text)
{
	size_t length = 0;

	while (text[length])
		length++;
	return length;
}

bool text_has_prefix(const char *text, const char *prefix)
{
	while (*prefix)
		if (*text++ != *prefix++)
			return false;
	return true;
}

bool text_has_suffix(const char *text, const char *suffix)
{
	size_t length = text_length(text), size = text_length(suffix);

	return length >= size && text_has_prefix(text + length - size, suffix);
}

const char *text_find(const char *text, char byte)
{
	for (; *text; text++)
		if (*text == byte)
			return text;
	return NULL;
}

void sentence_add(struct sentence *sentence, const char *text)
{
	while (*text && sentence->length < sizeof(sentence->text) - 1)
		sentence->text[sentence->length++] = *text++;
}

void sentence_add_number(struct sentence *sentence, unsigned long number)
{
	char digits[24];
	size_t at = sizeof(digits) - 1;

	digits[at] = '\0';
	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number);
	sentence_add(sentence, digits + at);
}

static const char *error_text(long error)
{
	switch (-error) {
	case EPERM:
		return "Operation not permitted";
	case ENOENT:
		return "No such file or directory";
	case EIO:
		return "Input/output error";
	case E2BIG:
		return "Argument list too long";
	case ENOEXEC:
		return "Exec format error";
	case ENOMEM:
		return "Cannot allocate memory";
	case EACCES:
		return "Permission denied";
	case ENODEV:
		return "No such device";
	case ENOTDIR:
		return "Not a directory";
	case EISDIR:
		return "Is a directory";
	case EINVAL:
		return "Invalid argument";
	case ELOOP:
		return "Too many levels of symbolic links";
	case ENOSYS:
		return "Function not implemented";
	default:
		return NULL;
	}
}

void sentence_add_error(struct sentence *sentence, long error)
{
	const char *text = error_text(error);

	sentence_add(sentence, ": ");
	if (text) {
		sentence_add(sentence, text);
		return;
	}
	sentence_add(sentence, "error ");
	sentence_add_number(sentence, (unsigned long)-error);
}
