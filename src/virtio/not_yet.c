/* Until the devices are merged. */
#include "virtio/balloon.h"
#include "virtio/console.h"
#include "virtio/net.h"

#define WEAK __attribute__((weak))

WEAK void virtio_balloon_set_target(struct virtio_device *dev, uint64_t target_bytes)
{
	(void)dev;
	(void)target_bytes;
}

WEAK void virtio_balloon_get_info(struct virtio_device *dev, struct virtio_balloon_info *ret_info)
{
	(void)dev;
	*ret_info = (struct virtio_balloon_info){0};
}

WEAK void virtio_balloon_request_stats(struct virtio_device *dev)
{
	(void)dev;
}

WEAK void virtio_console_set_size(struct virtio_device *dev, unsigned port, uint16_t rows, uint16_t columns)
{
	(void)dev;
	(void)port;
	(void)rows;
	(void)columns;
}

WEAK void virtio_net_set_link(struct virtio_device *dev, bool up)
{
	(void)dev;
	(void)up;
}

WEAK const char *netif_tap_interface(const struct netif *netif)
{
	(void)netif;
	return NULL;
}
