//! System calls that answer `ENOSYS`, each with the reason. A number that is neither here nor in a family fails the test below.

use cloudpilot_abi::raw;

const KEYS: &str = "no key rings";
const LANDLOCK: &str = "programs cannot confine themselves yet; they go on without, as on kernels before 5.13";
const NEVER: &str = "reserved; Linux itself never served it";
const OLD: &str = "Linux itself dropped it";
const MOUNT_FILES: &str = "mounts are made with mount(2)";
const LSM: &str = "no security modules to ask";
const RING: &str = "not there, so that runtimes fall back to epoll";
const PKEYS: &str = "no memory protection keys";
const ATTRIBUTES: &str = "no inode flags to get or set";

/// Number and reason.
pub const UNSUPPORTED: &[(u32, &str)] = &[
    (raw::__NR__sysctl, OLD),
    (raw::__NR_add_key, KEYS),
    (raw::__NR_afs_syscall, NEVER),
    (raw::__NR_create_module, OLD),
    (raw::__NR_epoll_ctl_old, NEVER),
    (raw::__NR_epoll_wait_old, NEVER),
    (raw::__NR_fanotify_mark, "there is no fanotify_init to make its argument"),
    (raw::__NR_file_getattr, ATTRIBUTES),
    (raw::__NR_file_setattr, ATTRIBUTES),
    (raw::__NR_get_kernel_syms, OLD),
    (raw::__NR_get_thread_area, "32-bit programs only"),
    (raw::__NR_getpmsg, NEVER),
    (raw::__NR_io_uring_enter, RING),
    (raw::__NR_io_uring_register, RING),
    (raw::__NR_io_uring_setup, RING),
    (raw::__NR_keyctl, KEYS),
    (raw::__NR_landlock_add_rule, LANDLOCK),
    (raw::__NR_landlock_create_ruleset, LANDLOCK),
    (raw::__NR_landlock_restrict_self, LANDLOCK),
    (raw::__NR_lsm_get_self_attr, LSM),
    (raw::__NR_lsm_list_modules, LSM),
    (raw::__NR_lsm_set_self_attr, LSM),
    (raw::__NR_map_shadow_stack, "no shadow stacks"),
    (raw::__NR_memfd_secret, "the kernel can always read what it serves"),
    (raw::__NR_modify_ldt, "no local descriptor tables: 64-bit programs only"),
    (raw::__NR_nfsservctl, OLD),
    (raw::__NR_open_tree_attr, MOUNT_FILES),
    (raw::__NR_pkey_alloc, PKEYS),
    (raw::__NR_pkey_free, PKEYS),
    (raw::__NR_pkey_mprotect, PKEYS),
    (raw::__NR_putpmsg, NEVER),
    (raw::__NR_query_module, OLD),
    (raw::__NR_request_key, KEYS),
    (
        raw::__NR_rseq,
        "the host preempts threads without telling, so that no sequence could be restarted safely; the C library does without",
    ),
    (raw::__NR_security, NEVER),
    (raw::__NR_set_thread_area, "32-bit programs only"),
    (raw::__NR_tuxcall, NEVER),
    (raw::__NR_uretprobe, "no probes"),
    (raw::__NR_uselib, OLD),
    (raw::__NR_vserver, NEVER),
];
