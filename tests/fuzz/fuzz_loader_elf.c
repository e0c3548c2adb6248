/* An ELF kernel file: headers, segments, notes; then the notes' parser alone on the same bytes. */
#include "fuzz_loader.h"

#include "loader/elf_note.h"

static void fuzz_notes(const uint8_t *data, size_t size_bytes)
{
	struct elf_note note;
	for (unsigned align = 4; align <= 8; align += 4) {
		if (!elf_note_find(data, size_bytes, align, "Xen", 18, &note))
			continue;
		assert(note.desc >= data && note.desc_bytes <= (size_t)(data + size_bytes - note.desc));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	static unsigned count;
	struct fuzz_machine *m = fuzz_machine();

	fuzz_load(m, data, size_bytes);
	fuzz_notes(data, size_bytes);
	if (++count % 64 == 0)
		fuzz_check_canary(m);
	return 0;
}
