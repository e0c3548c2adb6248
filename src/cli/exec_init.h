/* The program of guests/exec-init, as the build made it. */
#pragma once

#include <stddef.h>

extern const unsigned char exec_init_elf[];
extern const size_t exec_init_elf_size;
