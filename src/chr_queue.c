/*
 * The queue of a chr: what a device has written and the loop has not written out yet. The mutex guards it; what is in
 * it stays put until it leaves, as writers only append.
 */
#include "chr_impl.h"
#include "util.h"

static size_t enqueue(struct chr *chr, const uint8_t *data, size_t size_bytes)
{
	size_t taken = (size_t)min_u64(size_bytes, CHR_QUEUE_SIZE - chr->queue_used);
	size_t tail = (chr->queue_head + chr->queue_used) % CHR_QUEUE_SIZE;
	size_t first = (size_t)min_u64(taken, CHR_QUEUE_SIZE - tail);
	memcpy(chr->queue + tail, data, first);
	memcpy(chr->queue, data + first, taken - first);
	chr->queue_used += taken;
	if (taken < size_bytes)
		chr->starved = true;
	return taken;
}

/* How much of the queue's beginning may be written out or dropped. */
static size_t releasable(const struct chr *chr)
{
	return chr->tap.output ? chr->queue_tapped : chr->queue_used;
}

size_t chr_write(struct chr *chr, const uint8_t *data, size_t size_bytes)
{
	pthread_mutex_lock(&chr->mutex);
	/* The loop has nothing to do yet: it has to be told. */
	bool post = chr->tap.output ? chr->queue_tapped == chr->queue_used : chr->queue_used == 0;
	size_t taken = chr->connected || chr->tap.output ? enqueue(chr, data, size_bytes) : size_bytes;
	post = post && chr->queue_used > 0;
	if (taken && !chr->first_output_ns) {
		chr->first_output_ns = loop_now_ns();
		post = post || chr->started;
	}
	chr->output_bytes += taken;
	pthread_mutex_unlock(&chr->mutex);
	if (post)
		loop_post(chr->loop, &chr->write_task);
	return taken;
}

void chr_dequeue(struct chr *chr, size_t size_bytes)
{
	pthread_mutex_lock(&chr->mutex);
	chr->queue_used -= size_bytes;
	chr->queue_tapped -= min_u64(chr->queue_tapped, size_bytes);
	/* An empty queue starts over at its first page, so that an idle console stays one page big. */
	chr->queue_head = chr->queue_used ? (chr->queue_head + size_bytes) % CHR_QUEUE_SIZE : 0;
	bool starved = chr->starved;
	chr->starved = false;
	pthread_mutex_unlock(&chr->mutex);
	if (starved && chr->client.writable)
		chr->client.writable(chr->client.ctx);
}

size_t chr_first_run(struct chr *chr, bool tapped, const uint8_t **ret_run)
{
	pthread_mutex_lock(&chr->mutex);
	size_t from = tapped ? 0 : chr->queue_tapped;
	size_t to = tapped ? releasable(chr) : chr->queue_used;
	size_t at = (chr->queue_head + from) % CHR_QUEUE_SIZE;
	*ret_run = chr->queue + at;
	size_t size = (size_t)min_u64(to - from, CHR_QUEUE_SIZE - at);
	pthread_mutex_unlock(&chr->mutex);
	return size;
}

bool chr_has_output(struct chr *chr)
{
	pthread_mutex_lock(&chr->mutex);
	bool connected = chr->connected;
	pthread_mutex_unlock(&chr->mutex);
	return connected;
}

/* Nobody is there. The device must not wait for room that nobody will make. */
void chr_drop_output(struct chr *chr)
{
	pthread_mutex_lock(&chr->mutex);
	size_t size = releasable(chr);
	pthread_mutex_unlock(&chr->mutex);
	chr_dequeue(chr, size);
}

uint64_t chr_first_output_ns(struct chr *chr)
{
	pthread_mutex_lock(&chr->mutex);
	uint64_t ns = chr->first_output_ns;
	pthread_mutex_unlock(&chr->mutex);
	return ns;
}

uint64_t chr_output_bytes(struct chr *chr)
{
	pthread_mutex_lock(&chr->mutex);
	uint64_t bytes = chr->output_bytes;
	pthread_mutex_unlock(&chr->mutex);
	return bytes;
}

size_t chr_room(struct chr *chr)
{
	pthread_mutex_lock(&chr->mutex);
	bool kept = chr->connected || chr->tap.output;
	size_t room = kept ? CHR_QUEUE_SIZE - chr->queue_used : SIZE_MAX;
	pthread_mutex_unlock(&chr->mutex);
	return room;
}

size_t chr_pending(struct chr *chr)
{
	pthread_mutex_lock(&chr->mutex);
	size_t pending = chr->queue_used;
	pthread_mutex_unlock(&chr->mutex);
	return pending;
}
