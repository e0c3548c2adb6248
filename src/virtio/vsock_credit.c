#include "virtio/vsock_credit.h"

/* Less than 2^31, so that the difference of two counters tells which is ahead. */
static const uint32_t BUF_ALLOC_MAX = 1U << 30;

/*
 * A fwd_cnt that is behind the last one is no lie: a driver with several threads may send what it counted first after
 * what it counted later.
 */
bool vsock_credit_hear(struct vsock_credit *credit, uint32_t buf_alloc, uint32_t fwd_cnt)
{
	uint32_t waiting = credit->sent - fwd_cnt, waited = credit->sent - credit->guest_fwd_cnt;
	if (waiting > INT32_MAX)
		return false;
	credit->guest_buf_alloc = buf_alloc < BUF_ALLOC_MAX ? buf_alloc : BUF_ALLOC_MAX;
	if (waiting < waited)
		credit->guest_fwd_cnt = fwd_cnt;
	return true;
}

uint32_t vsock_credit_left(const struct vsock_credit *credit)
{
	uint32_t waiting = credit->sent - credit->guest_fwd_cnt;
	return waiting < credit->guest_buf_alloc ? credit->guest_buf_alloc - waiting : 0;
}

uint32_t vsock_credit_held(const struct vsock_credit *credit)
{
	return credit->received - credit->forwarded;
}

bool vsock_credit_has_news(const struct vsock_credit *credit)
{
	uint32_t known_used = credit->received - credit->told;
	return credit->told != credit->forwarded && known_used > VIRTIO_VSOCK_BUFFER_BYTES / 2;
}
