#include "disks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block.h"

/* --- names --------------------------------------------------------------------------------------------------- */

const char *disks_name(const struct vmlet_config *config, unsigned index, char ret_name[DEVICE_NAME_MAX])
{
	return config_device_name(config->disks[index]->id, "disk", index, ret_name);
}

int disks_find(const struct vmlet_config *config, const char *name)
{
	char candidate[DEVICE_NAME_MAX];
	for (unsigned i = 0; i < config->disk_count; i++) {
		if (strcmp(disks_name(config, i, candidate), name) == 0)
			return (int)i;
	}
	return -ENOENT;
}

/* --- opening: on the thread whose loop it is ------------------------------------------------------------------- */

struct opening {
	const struct vmlet_disk *disk;
	struct loop *loop;
	const struct log *log;
	struct err *err;
	struct block *block;
};

static struct block *open_image(const struct opening *opening)
{
	const struct vmlet_disk *disk = opening->disk;
	if (disk->kind == VMLET_DISK_NBD) {
		struct block_nbd_config nbd = {.address = disk->path, .read_only = disk->read_only || disk->overlay};
		return block_nbd_open(opening->loop, opening->log, &nbd, opening->err);
	}
	struct block_raw_config raw = {
		.path = disk->path,
		.read_only = disk->read_only || disk->overlay,
		.direct = disk->direct,
		.unsafe_flush = disk->cache == VMLET_DISK_CACHE_UNSAFE,
	};
	return block_raw_open(opening->loop, opening->log, &raw, opening->err);
}

static void open_block(void *ctx)
{
	struct opening *opening = ctx;
	const struct vmlet_disk *disk = opening->disk;
	opening->block = open_image(opening);
	if (!opening->block || !disk->overlay)
		return;
	/* Nobody will ask for an overlay without a name after a crash. */
	bool unsafe_flush = disk->cache == VMLET_DISK_CACHE_UNSAFE || !disk->overlay_path;
	struct block_cow_config cow = {.path = disk->overlay_path, .unsafe_flush = unsafe_flush};
	opening->block = block_cow_open(opening->loop, opening->log, opening->block, &cow, opening->err);
}

static void close_block(void *ctx)
{
	block_free(ctx);
}

static int open_disk(struct disks *disks, unsigned index, const struct vmlet_disk *disk, struct loop *loop,
		     const struct log *log, struct err *err)
{
	struct opening opening = {.disk = disk, .loop = loop, .log = log, .err = err};
	loop_call(loop, open_block, &opening);
	if (!opening.block)
		return err->code;
	disks->list[index] = (struct board_disk){
		.block = opening.block,
		.loop = loop,
		.init =
			{
				.serial = disk->serial,
				.queues = disk->queues,
				.packed = disk->packed,
				.limit =
					{
						.ops_per_s = disk->iops,
						.bytes_per_s = disk->bandwidth_bytes,
						.ops_burst = disk->iops_burst,
						.bytes_burst = disk->bandwidth_burst_bytes,
					},
			},
	};
	disks->count++;
	return 0;
}

static int start_iothreads(struct disks *disks, unsigned count, struct err *err)
{
	disks->iothreads = calloc(count + 1, sizeof(struct iothread *));
	if (!disks->iothreads)
		return err_set(err, -ENOMEM, "I/O threads: %s", err_name(ENOMEM));
	for (unsigned i = 0; i < count; i++) {
		char name[24];
		(void)snprintf(name, sizeof(name), "vmlet-io%u", i);
		disks->iothreads[i] = iothread_new(name, err);
		if (!disks->iothreads[i])
			return err->code;
		disks->iothread_count++;
	}
	return 0;
}

int disks_open(struct disks *disks, const struct vmlet_config *config, struct loop *loop, const struct log *log,
	       struct err *err)
{
	*disks = (struct disks){0};
	disks->list = calloc(config->disk_count + 1, sizeof(*disks->list));
	disks->names = calloc(config->disk_count + 1, sizeof(*disks->names));
	if (!disks->list || !disks->names)
		return err_set(err, -ENOMEM, "disks: %s", err_name(ENOMEM));
	int r = start_iothreads(disks, config->iothreads, err);
	for (unsigned i = 0; r == 0 && i < config->disk_count; i++) {
		struct loop *place = loop;
		if (disks->iothread_count)
			place = iothread_loop(disks->iothreads[i % disks->iothread_count]);
		r = open_disk(disks, i, config->disks[i], place, log, err);
		disks->list[i].name = disks_name(config, i, disks->names[i]);
	}
	return r;
}

void disks_close(struct disks *disks)
{
	while (disks->count) {
		struct board_disk *disk = &disks->list[--disks->count];
		loop_call(disk->loop, close_block, disk->block);
	}
	while (disks->iothread_count)
		iothread_free(disks->iothreads[--disks->iothread_count]);
	free(disks->iothreads);
	free(disks->list);
	free(disks->names);
	*disks = (struct disks){0};
}

/* --- resizing ---------------------------------------------------------------------------------------------------- */

struct resizing {
	struct block *block;
	struct virtio_device *dev;
	struct err *err;
	int result;
};

static void resize_block(void *ctx)
{
	struct resizing *resizing = ctx;
	resizing->result = block_resize(resizing->block, resizing->err);
	if (resizing->result == 0)
		virtio_blk_resized(resizing->dev);
}

int disks_resize(struct disks *disks, unsigned index, struct virtio_device *dev, struct err *err)
{
	struct resizing resizing = {.block = disks->list[index].block, .dev = dev, .err = err};
	loop_call(disks->list[index].loop, resize_block, &resizing);
	return resizing.result;
}
