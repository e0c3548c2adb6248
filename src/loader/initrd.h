/* The initrd: several files laid one after the other, as Linux wants its concatenated archives. */
#pragma once

#include "loader/place.h"

struct initrd {
	gpa_t base;
	uint64_t size_bytes; /* with the padding between files; 0: none */
};

/* Find a place for the plan's initrds below `end`. 0, or -errno with a sentence. */
int initrd_place(struct place *place, gpa_t end, struct initrd *ret_initrd, struct err *err);

/* Load them there. 0, or -errno with a sentence. */
int initrd_load(const struct load_plan *plan, const struct initrd *initrd, struct err *err);
