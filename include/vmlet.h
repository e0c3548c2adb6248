/*
 * libvmlet: start real, isolated virtual machines on Linux KVM from inside a program.
 *
 * A VM is an opaque handle. vmlet_new checks the configuration and opens the files, vmlet_start makes the
 * machine and lets it run on threads of its own, vmlet_run serves it until it ends and says how it ended:
 *
 *	struct vmlet_config config;
 *	vmlet_config_init(&config);
 *	config.kernel = "/boot/vmlinuz";
 *	config.cmdline = "console=ttyS0";
 *	struct vmlet_error error;
 *	struct vmlet *vm = vmlet_new(&config, &error);
 *	if (!vm || vmlet_start(vm, &error) < 0)
 *		complain(error.text);
 *	else
 *		vmlet_run(vm, &result);
 *	vmlet_free(vm);
 *
 * A program with an event loop polls vmlet_get_fd for reading and calls vmlet_dispatch instead of vmlet_run.
 * Many VMs may live in one process, each served by a thread of the caller's choice. The library never prints,
 * exits, installs a signal handler, reads the environment or changes a terminal. Link with -lvmlet.
 *
 * Threads: functions marked [owner] belong to the one thread that serves the VM; the first vmlet_run or
 * vmlet_dispatch binds it to its thread. [any] may be called from every thread. The library's own threads block every
 * signal; it interrupts them with SIGURG, sent to the thread.
 */
#ifndef VMLET_H
#define VMLET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define VMLET_API __attribute__((visibility("default")))
#else
#define VMLET_API
#endif

/* "0.1.0"; static storage. [any] */
VMLET_API const char *vmlet_version(void);

struct vmlet;

enum vmlet_error_kind {
	VMLET_ERROR_HOST = 0,   /* the host lacks or refuses something */
	VMLET_ERROR_CONFIG = 1, /* the configuration cannot be: a bad value, a file that is not a kernel */
	VMLET_ERROR_KVM = 2,    /* KVM cannot do what the machine needs */
};

/* Filled by functions that fail; may be passed as NULL. */
struct vmlet_error {
	int code; /* -errno */
	enum vmlet_error_kind kind;
	char text[512]; /* one sentence, no newline */
};

enum vmlet_log_level {
	VMLET_LOG_ERROR = 0,
	VMLET_LOG_WARN = 1,
	VMLET_LOG_INFO = 2,
	VMLET_LOG_DEBUG = 3,
};

enum vmlet_serial_kind {
	VMLET_SERIAL_NULL = 0, /* output is discarded, input never comes */
	VMLET_SERIAL_FD = 1,   /* in_fd and out_fd, borrowed; -1 for none */
	VMLET_SERIAL_FILE = 2, /* output to `path`, created or truncated */
	VMLET_SERIAL_PTY = 3,  /* a new pseudo-terminal; vmlet_serial_path names it */
	VMLET_SERIAL_UNIX = 4, /* a listening Unix stream socket at `path`; one peer at a time */
};

enum vmlet_boot_protocol {
	VMLET_BOOT_AUTO = 0,    /* PVH when the kernel has its note, else Linux 64-bit */
	VMLET_BOOT_LINUX64 = 1, /* the Linux 64-bit boot protocol */
	VMLET_BOOT_PVH = 2,     /* PVH direct boot */
};

enum vmlet_on_reboot {
	VMLET_ON_REBOOT_EXIT = 0,    /* a guest's reset ends the VM with VMLET_END_REBOOT */
	VMLET_ON_REBOOT_RESTART = 1, /* a fresh machine is made from the same configuration */
};

struct vmlet_serial {
	enum vmlet_serial_kind kind;
	const char *path;
	int in_fd;
	int out_fd;
	/* Sees input before the guest: may change or shorten `data` in place, returns the new size. NULL: none. [owner]
	 */
	size_t (*input_filter)(void *ctx, uint8_t *data, size_t size_bytes);
	void *input_filter_ctx;
	/*
	 * Sees all output, in order and once, also what the back end discards, as soon as the loop comes by. What it
	 * does not take in time holds the guest back as a slow reader does. It may call vmlet_type and vmlet_stop.
	 * NULL: none. [owner]
	 */
	void (*output_tap)(void *ctx, const uint8_t *data, size_t size_bytes);
	void *output_tap_ctx;
};

enum vmlet_disk_kind {
	VMLET_DISK_RAW = 0, /* `path`: a raw image or a block device; its format is never probed */
	VMLET_DISK_NBD = 1, /* `path`: "unix:PATH[:EXPORT]" or "HOST:PORT[:EXPORT]" of an NBD server */
};

enum vmlet_disk_cache {
	VMLET_DISK_CACHE_WRITEBACK = 0, /* a flush makes what was written stable */
	VMLET_DISK_CACHE_UNSAFE = 1,    /* a flush does nothing: for what nobody needs after a crash of the host */
};

/* A disk (virtio-blk). New members are added at the end only; vmlet_disk_init fills the defaults. */
struct vmlet_disk {
	size_t struct_size;
	enum vmlet_disk_kind kind;
	const char *path;
	const char *id;     /* for vmlet_resize_disk and messages; default "disk0", "disk1", ... */
	const char *serial; /* what the guest sees as serial number, up to 20 bytes; NULL: none */
	bool read_only;
	bool direct;              /* O_DIRECT: past the host's page cache */
	bool overlay;             /* writes go to a copy-on-write file, the image stays as it is */
	const char *overlay_path; /* that file, kept; NULL: one without a name, gone with the VM */
	enum vmlet_disk_cache cache;
	unsigned queues;          /* default 1; 1 to 16 */
	bool packed;              /* offer packed rings */
	uint64_t iops;            /* requests a second; 0: no limit */
	uint64_t bandwidth_bytes; /* bytes a second; 0: no limit */
	uint64_t iops_burst;      /* requests; 0: a tenth of a second's worth */
	uint64_t bandwidth_burst_bytes;
};

enum vmlet_net_kind {
	VMLET_NET_TAP = 0,   /* `path`: the tap interface's name; NULL: a new one, see vmlet_net_interface */
	VMLET_NET_PASST = 1, /* `path`: the program passt, which is started, and ends with the VM */
	VMLET_NET_STREAM =
		2, /* `path`: a Unix stream socket with QEMU's framing, to connect to: a running passt, or a VM */
	VMLET_NET_LISTEN = 3, /* the same, to make and listen on: one peer at a time */
	VMLET_NET_FD = 4,     /* `fd`, borrowed: a connected stream socket (QEMU's framing), or a tap */
};

/* A network card (virtio-net). New members are added at the end only; vmlet_net_init fills the defaults. */
struct vmlet_net {
	size_t struct_size;
	enum vmlet_net_kind kind;
	const char *path;
	int fd;          /* default -1 */
	const char *id;  /* for messages and the functions below; default "net0", "net1", ... */
	uint8_t mac[6];  /* all zero (default): one is made up, locally administered */
	uint16_t mtu;    /* told to the guest, 68 to 65535, over a socket 65521; 0: the interface's, or 1500 */
	unsigned queues; /* pairs; default 1; a tap's may be up to 8 */
	const char *const *publish; /* passt: "[ADDRESS/]HOSTPORT[:GUESTPORT][/udp]", publish_count of them */
	size_t publish_count;
	bool link_down;           /* at first: see vmlet_set_link */
	bool packed;              /* offer packed rings */
	uint64_t packets_per_s;   /* each way; 0: no limit */
	uint64_t packets_burst;   /* 0: a tenth of a second's worth */
	uint64_t bandwidth_bytes; /* a second, each way; 0: no limit */
	uint64_t bandwidth_burst_bytes;
};

/*
 * A console (virtio-console): hvc0, hvc1, ... in the order of those without a name; or, with a name, a port
 * (/dev/virtio-ports/NAME). New members are added at the end only; vmlet_console_init fills the defaults.
 */
struct vmlet_console {
	size_t struct_size;
	const char *name; /* of a port; NULL: a console */
	struct vmlet_serial backend;
	uint16_t rows, columns;   /* the terminal's size; 0: not known. vmlet_set_window_size changes it where it is */
	uint64_t bandwidth_bytes; /* a second, each way; 0: no limit. A guest that prints more waits */
	uint64_t bandwidth_burst_bytes; /* 0: a tenth of a second's worth */
};

/* Devices that come once. vmlet_config_init leaves them out. */
struct vmlet_balloon {
	bool enabled;
	uint64_t target_bytes; /* at first; vmlet_set_balloon changes it */
	bool deflate_on_oom;
	bool reporting; /* free page reporting: what the guest frees goes back to the host by itself */
	bool packed;    /* offer packed rings */
};

struct vmlet_vsock {
	const char *path;         /* a Unix socket to make (Firecracker's convention: docs/vsock.md); NULL: no vsock */
	uint32_t cid;             /* the guest's; 0: 3 */
	bool packed;              /* offer packed rings */
	uint64_t packets_per_s;   /* each way; 0: no limit */
	uint64_t packets_burst;   /* 0: a tenth of a second's worth */
	uint64_t bandwidth_bytes; /* a second, each way; 0: no limit */
	uint64_t bandwidth_burst_bytes;
};

struct vmlet_rng {
	bool enabled;
	uint64_t bandwidth_bytes; /* a second; 0: no limit */
	bool packed;              /* offer packed rings */
};

/* How devices are found by the guest. */
enum vmlet_transport {
	VMLET_TRANSPORT_PCI = 0,
	VMLET_TRANSPORT_MMIO = 1, /* virtio-mmio, described in ACPI: for kernels without PCI; at most 16 devices */
};

/*
 * What happens to a VM, as it happens and in this order; a guest that is restarted is loaded and runs again. The
 * numbers are part of the ABI.
 */
enum vmlet_event_kind {
	VMLET_EVENT_CREATED = 1,       /* vmlet_new has checked everything and opened the files */
	VMLET_EVENT_KERNEL_LOADED = 2, /* guest memory is ready */
	VMLET_EVENT_RUNNING = 3,       /* the vCPUs have started */
	VMLET_EVENT_CONSOLE = 4,       /* the first byte of output of the serial port or a console */
	VMLET_EVENT_PANIC = 5,         /* the guest's kernel reported a panic */
	VMLET_EVENT_RESET = 6,         /* the guest reset itself (and may be restarted) */
	VMLET_EVENT_DEVICE_BROKEN = 7, /* a driver broke the rules; `text` names the device and the rule */
	VMLET_EVENT_ENDED = 8,         /* vmlet_get_result has the end */
};

struct vmlet_event {
	enum vmlet_event_kind kind;
	uint64_t monotonic_ns; /* CLOCK_MONOTONIC */
	const char *text;      /* more about it, or ""; valid during the call */
};

/*
 * Byte streams to and from a program in the guest, past every kernel driver: the stream port (docs/stream-port.md).
 * What `vmlet exec` is made of. Descriptors are borrowed; -1: none.
 */
struct vmlet_streams {
	bool enabled;
	int in_fd, out_fd, err_fd;
	uint16_t rows, columns; /* the terminal's size, 0: not a terminal; vmlet_set_window_size changes it */
	size_t (*input_filter)(void *ctx, uint8_t *data, size_t size_bytes); /* as that of a serial port. [owner] */
	void *input_filter_ctx;
};

/*
 * Everything about a VM. vmlet_config_init fills the defaults; strings are copied by vmlet_new. New members
 * are added at the end only, and struct_size tells the library which of them the caller knows.
 */
struct vmlet_config {
	size_t struct_size;
	const char *kernel;         /* path, required */
	const char *const *initrds; /* paths, concatenated */
	size_t initrd_count;
	const char *cmdline;      /* NULL: empty */
	uint64_t memory_bytes;    /* default 256 MiB; a multiple of 4 KiB, at least 2 MiB */
	unsigned cpus;            /* default 1; 1 to 254 */
	const char *cpu_features; /* "+name,-name,..." over what the host supports; NULL: none */
	enum vmlet_boot_protocol boot_protocol;
	enum vmlet_on_reboot on_reboot;
	struct vmlet_serial serial;     /* COM1; default VMLET_SERIAL_NULL with descriptors -1 */
	struct vmlet_serial debugcon;   /* the debug console, ports 0xe9 and 0x402: output only; default the same */
	enum vmlet_log_level log_level; /* default VMLET_LOG_WARN */
	/* NULL: none. A lock may be held: of this library, call vmlet_stop only. [any] */
	void (*log)(void *ctx, enum vmlet_log_level level, const char *line);
	void *log_ctx;
	const struct vmlet_disk *const *disks;
	size_t disk_count; /* with the other devices at most 31 */
	enum vmlet_transport transport;
	unsigned iothreads; /* I/O threads that disks are placed on in turn; 0 (default): the thread of vmlet_run does
			       all */
	void (*event)(void *ctx,
		      const struct vmlet_event *event); /* NULL: none; quick, and calls only vmlet_stop. [any] */
	void *event_ctx;
	uint64_t timeout_ns; /* after so long since vmlet_start it ends as VMLET_END_TIMEOUT; 0: never */
	struct vmlet_streams streams;
	const struct vmlet_net *const *nets;
	size_t net_count;
	const struct vmlet_console *const *consoles;
	size_t console_count; /* at most 14 */
	bool consoles_packed; /* the device of them all offers packed rings */
	bool status_port;     /* a port org.vmlet.status (docs/status-port.md); with any console it is there anyway */
	struct vmlet_balloon balloon;
	struct vmlet_vsock vsock;
	struct vmlet_rng rng;
};

/* How a VM ended. The numbers are part of the ABI. */
enum vmlet_end {
	VMLET_END_NONE = 0,         /* it has not ended */
	VMLET_END_POWEROFF = 1,     /* ACPI power-off */
	VMLET_END_REBOOT = 2,       /* reset by ACPI or keyboard controller, with on_reboot = exit */
	VMLET_END_PANIC = 3,        /* the guest's kernel reported a panic through pvpanic */
	VMLET_END_TRIPLE_FAULT = 4, /* a triple fault, with on_reboot = exit */
	VMLET_END_DEBUG_EXIT = 5,   /* the guest wrote result.value to the debug-exit port, or to its status port */
	VMLET_END_STOPPED = 6,      /* vmlet_stop */
	VMLET_END_KVM_ERROR =
		7, /* KVM cannot go on: internal error or failed entry; result.text and the log say more */
	VMLET_END_HOST_ERROR = 8, /* the host failed under a running VM; result.text says more */
	VMLET_END_TIMEOUT = 9,    /* config.timeout_ns is over */
};

struct vmlet_result {
	enum vmlet_end end;
	uint32_t value; /* VMLET_END_DEBUG_EXIT: 0 to 255; VMLET_END_STOPPED: what vmlet_stop was given */
	char text[512]; /* one sentence, for people */
};

/*
 * The exit statuses of the program `vmlet`: the guest's own status where there is one, else one of these. Programs that
 * embed the library may use them too.
 */
enum vmlet_exit_status {
	VMLET_EXIT_POWEROFF = 0,      /* powered off without a status; all expectations were met */
	VMLET_EXIT_HOST = 1,          /* the host lacks or refuses something */
	VMLET_EXIT_CONFIG = 2,        /* the command line or the configuration cannot be */
	VMLET_EXIT_NO_STATUS = 79,    /* exec: the guest ended before the command had a status */
	VMLET_EXIT_REBOOT = 80,       /* the guest reset itself */
	VMLET_EXIT_PANIC = 81,        /* the guest's kernel panicked */
	VMLET_EXIT_TRIPLE_FAULT = 82, /* the guest ended in a triple fault */
	VMLET_EXIT_KVM = 83,          /* KVM cannot run the guest */
	VMLET_EXIT_EXPECT = 84,       /* the console never showed what was expected, or showed what must not be */
	VMLET_EXIT_LEFT = 85,         /* the user left with Ctrl-A x */
	VMLET_EXIT_TIMEOUT = 124,     /* it took too long (as timeout(1) has it) */
	VMLET_EXIT_SIGNAL = 128,      /* plus the number of the signal that ended vmlet */
	VMLET_EXIT_BUG = 134,         /* a bug in vmlet (SIGABRT) */
};

/* Fill with defaults and sizeof(struct vmlet_config). [any] */
#define vmlet_config_init(config) vmlet_config_init_sized((config), sizeof(struct vmlet_config))
VMLET_API void vmlet_config_init_sized(struct vmlet_config *config, size_t struct_size);

/* The same for a disk, a network card, a console. [any] */
#define vmlet_disk_init(disk)       vmlet_disk_init_sized((disk), sizeof(struct vmlet_disk))
#define vmlet_net_init(net)         vmlet_net_init_sized((net), sizeof(struct vmlet_net))
#define vmlet_console_init(console) vmlet_console_init_sized((console), sizeof(struct vmlet_console))
VMLET_API void vmlet_disk_init_sized(struct vmlet_disk *disk, size_t struct_size);
VMLET_API void vmlet_net_init_sized(struct vmlet_net *net, size_t struct_size);
VMLET_API void vmlet_console_init_sized(struct vmlet_console *console, size_t struct_size);

/*
 * Check everything that can be checked without a machine (values, files, the kernel's headers), open the
 * serial port's back end, and return a VM that has not started. NULL with `ret_error` filled. [any]
 */
VMLET_API struct vmlet *vmlet_new(const struct vmlet_config *config, struct vmlet_error *ret_error);

/* Create the machine and start its vCPUs. 0, or -errno with `ret_error` filled; the VM can then only be freed. [owner]
 */
VMLET_API int vmlet_start(struct vmlet *vm, struct vmlet_error *ret_error);

/* Serve the VM until it has ended and its console output is written. 0 with ret_result (may be NULL) filled, or -errno.
 * [owner] */
VMLET_API int vmlet_run(struct vmlet *vm, struct vmlet_result *ret_result);

/* A descriptor that polls readable when vmlet_dispatch has work; the library's, do not read it. [any] */
VMLET_API int vmlet_get_fd(struct vmlet *vm);

/* Do what is ready without waiting. 0: the VM goes on, 1: it has ended (vmlet_get_result), or -errno. [owner] */
VMLET_API int vmlet_dispatch(struct vmlet *vm);

/* How it ended; end is VMLET_END_NONE before. [owner] */
VMLET_API void vmlet_get_result(const struct vmlet *vm, struct vmlet_result *ret_result);

/*
 * End the VM as VMLET_END_STOPPED with `value`; the first end counts. Returns at once; vmlet_run or
 * vmlet_dispatch then reports it. Async-signal-safe. A call must have returned before vmlet_free begins. [any]
 */
VMLET_API void vmlet_stop(struct vmlet *vm, uint32_t value);

/* Hold the vCPUs, and let them go on. When vmlet_pause returns, no guest instruction runs. 0, or -errno
 * (-EINVAL: not running). [owner] */
VMLET_API int vmlet_pause(struct vmlet *vm);
VMLET_API int vmlet_resume(struct vmlet *vm);

/* Press the ACPI power button: a guest that listens shuts down. 0, or -EINVAL when not running. [owner] */
VMLET_API int vmlet_press_power_button(struct vmlet *vm);

/* Where vmlet_type types, beside the consoles by their numbers in config.consoles. */
enum { VMLET_SERIAL_PORT = -1 };

/*
 * Type for the guest: `data` goes to the serial port, or to config.consoles[console], as if it had come from its input,
 * before what comes from there. Takes up to 64 KiB ahead of the guest; returns how many bytes it took, or -EINVAL when
 * not running or there is no such console. [owner]
 */
VMLET_API int vmlet_type(struct vmlet *vm, int console, const void *data, size_t size_bytes);

/* The terminal has another size: that behind config.streams, and that of each console whose size was given. 0, or
 * -EINVAL. [owner] */
VMLET_API int vmlet_set_window_size(struct vmlet *vm, uint16_t rows, uint16_t columns);

/* When things happened, CLOCK_MONOTONIC in ns, 0 for what has not; and what it took. */
struct vmlet_stats {
	uint64_t created_ns, loaded_ns, running_ns, console_ns, ended_ns;
	uint64_t console_bytes; /* output of the serial port and the consoles */
	uint64_t restarts;
};
VMLET_API void vmlet_get_stats(const struct vmlet *vm, struct vmlet_stats *ret_stats); /* [owner] */

/* What a disk has done since the machine started. */
struct vmlet_disk_counters {
	uint64_t requests;          /* taken from the guest */
	uint64_t doorbells;         /* times that the guest woke us */
	uint64_t interrupts;        /* times that we interrupted the guest */
	uint64_t interrupts_spared; /* completions that the guest did not want to hear of */
};

/*
 * The image behind disk `id` was grown or cut from outside: look at its size and tell the guest. 0, or -errno with
 * `ret_error` filled (-ENOENT: no such disk). [owner]
 */
VMLET_API int vmlet_resize_disk(struct vmlet *vm, const char *id, struct vmlet_error *ret_error);

/* 0, -ENOENT (no such disk), or -EINVAL (not running). [owner] */
VMLET_API int vmlet_get_disk_counters(struct vmlet *vm, const char *id, struct vmlet_disk_counters *ret_counters);

/* Pull the cable of network card `id`, or plug it in: also what it is after a guest's restart. 0, -ENOENT (no such
 * card), or -EINVAL (not running). [owner] */
VMLET_API int vmlet_set_link(struct vmlet *vm, const char *id, bool up);

/* What a network card has done: packets since the VM was made, the rest since the machine started. */
struct vmlet_net_counters {
	uint64_t sent, sent_bytes; /* by the guest; without virtio-net headers */
	uint64_t received, received_bytes;
	uint64_t dropped;                                  /* both ways: no link, too long for the guest's buffers */
	uint64_t doorbells, interrupts, interrupts_spared; /* as those of a disk */
};

/* 0, -ENOENT (no such card), or -EINVAL (not running). [owner] */
VMLET_API int vmlet_get_net_counters(struct vmlet *vm, const char *id, struct vmlet_net_counters *ret_counters);

/* The host's interface behind a tap ("tap0"), or NULL. Valid until vmlet_free. [owner] */
VMLET_API const char *vmlet_net_interface(const struct vmlet *vm, const char *id);

/* Ask the guest to give back so much of its memory (whole pages), or to take it again. 0, or -EINVAL: no balloon, more
 * than the memory, or not running. [owner] */
VMLET_API int vmlet_set_balloon(struct vmlet *vm, uint64_t target_bytes);

/* What the balloon holds, and what the guest said last of itself; UINT64_MAX: it has not said. */
struct vmlet_balloon_info {
	uint64_t target_bytes, actual_bytes;
	uint64_t discarded_bytes, reported_bytes; /* ever given back: inflated; by free page reporting */
	uint64_t swap_in, swap_out, major_faults, minor_faults;
	uint64_t free_bytes, total_bytes, available_bytes, disk_cache_bytes;
	uint64_t stats_ns; /* CLOCK_MONOTONIC of what the guest said; 0: never */
};

/* Fills what is known, and asks the guest for newer statistics. 0, or -EINVAL: no balloon, or not running. [owner] */
VMLET_API int vmlet_get_balloon(struct vmlet *vm, struct vmlet_balloon_info *ret_info);

/* How to reach config.consoles[console] from outside, as below. [owner] */
VMLET_API const char *vmlet_console_path(const struct vmlet *vm, unsigned console);

/* How to reach the serial port from outside ("/dev/pts/3", a socket's path), or NULL. Valid until vmlet_free. [owner]
 */
VMLET_API const char *vmlet_serial_path(const struct vmlet *vm);

/* Stop if need be, destroy the machine, free everything. NULL is accepted. [owner] */
VMLET_API void vmlet_free(struct vmlet *vm);

#ifdef __cplusplus
}
#endif

#endif
