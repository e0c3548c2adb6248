#include "kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>

#include "fd.h"

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
	return kvm_ioctl_value(fd, request, (unsigned long)arg);
}

int kvm_ioctl_value(int fd, unsigned long request, unsigned long value)
{
	int r;
	do
		r = ioctl(fd, (int)request, value); /* int is what musl declares; the kernel takes 32 bits */
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

static const char *open_hint(int code)
{
	switch (code) {
	case -ENOENT:
		return " (load the module: modprobe kvm_intel or kvm_amd; in a container, pass --device /dev/kvm)";
	case -EACCES:
	case -EPERM:
		return " (join the group that owns it: usermod -aG kvm $USER, then log in again)";
	case -ENODEV:
	case -ENXIO:
		return " (the module is loaded, but the CPU's virtualization is off: enable VT-x or SVM in the "
		       "firmware)";
	default:
		return "";
	}
}

static int open_system(struct kvm *kvm, struct err *err)
{
	kvm->system_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm->system_fd < 0) {
		int code = -errno;
		return err_set(err, code, "open /dev/kvm: %s%s", err_name(code), open_hint(code));
	}
	int version = kvm_ioctl_value(kvm->system_fd, KVM_GET_API_VERSION, 0);
	if (version < 0)
		return err_set(err, version, "/dev/kvm: not a KVM device: %s", err_name(version));
	if (version != KVM_API_VERSION)
		return err_kvm(err, -ENOTSUP, "/dev/kvm: API version %d; vmlet needs %d", version, KVM_API_VERSION);
	return 0;
}

int kvm_open(struct kvm *kvm, struct err *err)
{
	*kvm = (struct kvm){.system_fd = -1, .vm_fd = -1};
	int r = open_system(kvm, err);
	if (r < 0)
		goto fail;

	r = kvm_ioctl_value(kvm->system_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (r < 0) {
		err_kvm(err, r, "KVM_GET_VCPU_MMAP_SIZE: %s", err_name(r));
		goto fail;
	}
	kvm->run_size_bytes = (size_t)r;

	r = kvm_ioctl_value(kvm->system_fd, KVM_CREATE_VM, 0);
	if (r < 0) {
		err_set(err, r, "KVM_CREATE_VM: %s", err_name(r));
		goto fail;
	}
	kvm->vm_fd = r;
	return 0;
fail:
	kvm_close(kvm);
	return r;
}

void kvm_close(struct kvm *kvm)
{
	fd_close(&kvm->vm_fd);
	fd_close(&kvm->system_fd);
}
