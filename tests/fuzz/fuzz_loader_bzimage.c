/*
 * A bzImage. The input is the setup header (file offset 0x1f1) and the code behind it; what stands before is
 * made, and so are the two magic numbers, so that the fuzzer does not spend its time on them.
 */
#include "fuzz_loader.h"

#include "loader/boot_params.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
	static uint8_t file[SETUP_SECTS + 8192];
	static unsigned count;
	struct fuzz_machine *m = fuzz_machine();

	size_bytes = (size_t)min_u64(size_bytes, sizeof(file) - SETUP_SECTS);
	memcpy(file + SETUP_SECTS, data, size_bytes);
	if (size_bytes >= SETUP_VERSION - SETUP_SECTS) {
		le16_store(file + SETUP_BOOT_FLAG, SETUP_BOOT_FLAG_MAGIC);
		le32_store(file + SETUP_HEADER, SETUP_HEADER_MAGIC);
	}
	fuzz_load(m, file, SETUP_SECTS + size_bytes);
	if (++count % 64 == 0)
		fuzz_check_canary(m);
	return 0;
}
