#include "arch/x86/board_models.h"

#include <errno.h>
#include <stdlib.h>

/* What all of them need. */
struct adding {
	struct board_models *models;
	struct vm *vm;
	const struct board_config *config;
	struct board_virtio *virtio;
	struct err *err;
};

/* `dev` may be NULL, with `err` set by its constructor. */
static int add(const struct adding *adding, struct virtio_device *dev, const char *name)
{
	if (dev)
		virtio_set_owner(dev, name, adding->config->virtio_sink);
	return board_virtio_add(adding->virtio, dev, adding->err);
}

static int add_disks(const struct adding *adding)
{
	struct vm *vm = adding->vm;
	int r = 0;
	for (unsigned i = 0; r == 0 && i < adding->config->disk_count; i++) {
		const struct board_disk *disk = &adding->config->disks[i];
		struct virtio_device *dev =
			virtio_blk_new(disk->loop, vm->gmem, vm->log, disk->block, &disk->init, adding->err);
		adding->models->disks[i] = dev;
		r = add(adding, dev, disk->name);
	}
	return r;
}

static int add_nets(const struct adding *adding)
{
	struct vm *vm = adding->vm;
	int r = 0;
	for (unsigned i = 0; r == 0 && i < adding->config->net_count; i++) {
		const struct board_net *net = &adding->config->nets[i];
		struct virtio_device *dev =
			virtio_net_new(vm->loop, vm->gmem, vm->log, net->netif, &net->init, adding->err);
		adding->models->nets[i] = dev;
		r = add(adding, dev, net->name);
	}
	return r;
}

static int add_console(const struct adding *adding)
{
	struct vm *vm = adding->vm;
	if (!adding->config->has_console)
		return 0;
	struct virtio_console_init init = {
		.ports = adding->config->consoles,
		.port_count = adding->config->console_count,
		.packed = adding->config->consoles_packed,
		.events = vm_guest_event_sink(vm),
	};
	adding->models->console = virtio_console_new(vm->loop, vm->gmem, vm->log, &init, adding->err);
	return add(adding, adding->models->console, NULL);
}

static int add_rng(const struct adding *adding)
{
	struct vm *vm = adding->vm;
	if (!adding->config->has_rng)
		return 0;
	return add(adding, virtio_rng_new(vm->loop, vm->gmem, vm->log, &adding->config->rng, adding->err), NULL);
}

static int add_balloon(const struct adding *adding)
{
	struct vm *vm = adding->vm;
	if (!adding->config->has_balloon)
		return 0;
	adding->models->balloon =
		virtio_balloon_new(vm->loop, vm->gmem, vm->log, &adding->config->balloon, adding->err);
	return add(adding, adding->models->balloon, NULL);
}

static int add_vsock(const struct adding *adding)
{
	struct vm *vm = adding->vm;
	if (!adding->config->vsock_host)
		return 0;
	struct virtio_device *dev = virtio_vsock_new(vm->loop, vm->gmem, vm->log, adding->config->vsock_host,
						     &adding->config->vsock, adding->err);
	return add(adding, dev, NULL);
}

int board_models_add(struct board_models *models, struct vm *vm, const struct board_config *config,
		     struct board_virtio *virtio, struct err *err)
{
	const struct adding adding = {models, vm, config, virtio, err};
	models->disks = calloc(config->disk_count + 1, sizeof(struct virtio_device *));
	models->nets = calloc(config->net_count + 1, sizeof(struct virtio_device *));
	if (!models->disks || !models->nets)
		return err_set(err, -ENOMEM, "board: %s", err_name(ENOMEM));
	int r = add_disks(&adding);
	if (r == 0)
		r = add_nets(&adding);
	if (r == 0)
		r = add_console(&adding);
	if (r == 0)
		r = add_rng(&adding);
	if (r == 0)
		r = add_balloon(&adding);
	if (r == 0)
		r = add_vsock(&adding);
	return r;
}

void board_models_free(struct board_models *models)
{
	free(models->disks);
	free(models->nets);
	*models = (struct board_models){0};
}
