/*
 * One question of statx, apart from everything else: musl's <sys/stat.h> has a struct statx without the answer, and the
 * kernel's header does not stand beside it.
 */
#include <linux/fcntl.h>
#include <linux/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "block_raw_file.h"

static bool is_power_of_two(uint32_t n)
{
	return n && (n & (n - 1)) == 0;
}

bool block_raw_direct_alignment(int fd, uint32_t *ret_offset_align, uint32_t *ret_memory_align)
{
	struct statx answer = {0};
	if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &answer) < 0)
		return false;
	if (!(answer.stx_mask & STATX_DIOALIGN) || !is_power_of_two(answer.stx_dio_offset_align) ||
	    !is_power_of_two(answer.stx_dio_mem_align))
		return false;
	*ret_offset_align = answer.stx_dio_offset_align;
	*ret_memory_align = answer.stx_dio_mem_align;
	return true;
}
