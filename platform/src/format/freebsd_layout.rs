//! Offsets, sizes and numbers of FreeBSD's kernel interface, as far as they are used here.
//!
//! Sources: FreeBSD 15.0, `sys/sys/user.h`, `sys/sys/ptrace.h`, `sys/sys/sysctl.h`, `sys/sys/proc.h`, `sys/*/include/reg.h`. They are
//! the same from FreeBSD 12 on, and from 10 on but for the two that say so. What follows `//` on a line is the same value in C:
//! `tests/freebsd/build` has a C compiler compare each line with the system's own headers, for both architectures unless the
//! line names one.

// sysctl
pub(crate) const CTL_KERN: i32 = 1; // CTL_KERN
pub(crate) const KERN_PROC: i32 = 14; // KERN_PROC
pub(crate) const KERN_PROC_PID: i32 = 1; // KERN_PROC_PID
pub(crate) const KERN_PROC_PATHNAME: i32 = 12; // KERN_PROC_PATHNAME
pub(crate) const KERN_PROC_INC_THREAD: i32 = 16; // KERN_PROC_INC_THREAD
pub(crate) const KERN_PROC_VMMAP: i32 = 32; // KERN_PROC_VMMAP
pub(crate) const KERN_PROC_FILEDESC: i32 = 33; // KERN_PROC_FILEDESC
pub(crate) const KERN_PROC_AUXV: i32 = 36; // KERN_PROC_AUXV

// A process or thread: struct kinfo_proc
pub(crate) const KINFO_PROC_BYTES: usize = 1088; // sizeof(struct kinfo_proc)
pub(crate) const KI_STRUCTSIZE: usize = 0; // offsetof(struct kinfo_proc, ki_structsize)
pub(crate) const KI_PID: usize = 72; // offsetof(struct kinfo_proc, ki_pid)
pub(crate) const KI_PPID: usize = 76; // offsetof(struct kinfo_proc, ki_ppid)
pub(crate) const KI_UID: usize = 168; // offsetof(struct kinfo_proc, ki_uid)
pub(crate) const KI_RSSIZE: usize = 264; // offsetof(struct kinfo_proc, ki_rssize)
pub(crate) const KI_START: usize = 336; // offsetof(struct kinfo_proc, ki_start)
pub(crate) const KI_FLAG: usize = 368; // offsetof(struct kinfo_proc, ki_flag)
pub(crate) const KI_STAT: usize = 388; // offsetof(struct kinfo_proc, ki_stat)
pub(crate) const KI_TDNAME: usize = 394; // offsetof(struct kinfo_proc, ki_tdname)
pub(crate) const KI_TDNAME_BYTES: usize = 17; // sizeof(((struct kinfo_proc *)0)->ki_tdname)
pub(crate) const KI_COMM: usize = 447; // offsetof(struct kinfo_proc, ki_comm)
pub(crate) const KI_COMM_BYTES: usize = 20; // sizeof(((struct kinfo_proc *)0)->ki_comm)
pub(crate) const KI_EMUL: usize = 467; // offsetof(struct kinfo_proc, ki_emul)
pub(crate) const KI_EMUL_BYTES: usize = 17; // sizeof(((struct kinfo_proc *)0)->ki_emul)
// From FreeBSD 11 on; 0 before.
pub(crate) const KI_TRACER: usize = 576; // offsetof(struct kinfo_proc, ki_tracer)
pub(crate) const KI_JID: usize = 592; // offsetof(struct kinfo_proc, ki_jid)
pub(crate) const KI_NUMTHREADS: usize = 596; // offsetof(struct kinfo_proc, ki_numthreads)
pub(crate) const KI_TID: usize = 600; // offsetof(struct kinfo_proc, ki_tid)
pub(crate) const KI_TDFLAGS: usize = 1080; // offsetof(struct kinfo_proc, ki_tdflags)
pub(crate) const SSLEEP: u8 = 3; // SSLEEP
pub(crate) const SZOMB: u8 = 5; // SZOMB
pub(crate) const P_KPROC: u64 = 0x4; // P_KPROC
pub(crate) const P_SUGID: u64 = 0x100; // P_SUGID
pub(crate) const P_SYSTEM: u64 = 0x200; // P_SYSTEM
pub(crate) const P_TRACED: u64 = 0x800; // P_TRACED
pub(crate) const P_WEXIT: u64 = 0x2000; // P_WEXIT
pub(crate) const P_STOPPED_SIG: u64 = 0x20000; // P_STOPPED_SIG
pub(crate) const P_INEXEC: u64 = 0x4000000; // P_INEXEC
pub(crate) const TDF_SINTR: u64 = 0x8; // TDF_SINTR

// A mapping: struct kinfo_vmentry
pub(crate) const KVE_STRUCTSIZE: usize = 0; // offsetof(struct kinfo_vmentry, kve_structsize)
pub(crate) const KVE_TYPE: usize = 4; // offsetof(struct kinfo_vmentry, kve_type)
pub(crate) const KVE_START: usize = 8; // offsetof(struct kinfo_vmentry, kve_start)
pub(crate) const KVE_END: usize = 16; // offsetof(struct kinfo_vmentry, kve_end)
pub(crate) const KVE_OFFSET: usize = 24; // offsetof(struct kinfo_vmentry, kve_offset)
pub(crate) const KVE_VN_FILEID: usize = 32; // offsetof(struct kinfo_vmentry, kve_vn_fileid)
pub(crate) const KVE_FLAGS: usize = 44; // offsetof(struct kinfo_vmentry, kve_flags)
pub(crate) const KVE_RESIDENT: usize = 48; // offsetof(struct kinfo_vmentry, kve_resident)
pub(crate) const KVE_PROTECTION: usize = 56; // offsetof(struct kinfo_vmentry, kve_protection)
// From FreeBSD 12 on; something else before.
pub(crate) const KVE_VN_FSID: usize = 88; // offsetof(struct kinfo_vmentry, kve_vn_fsid)
pub(crate) const KVE_PATH: usize = 136; // offsetof(struct kinfo_vmentry, kve_path)
pub(crate) const KVME_TYPE_VNODE: i32 = 2; // KVME_TYPE_VNODE
pub(crate) const KVME_TYPE_DEVICE: i32 = 4; // KVME_TYPE_DEVICE
pub(crate) const KVME_TYPE_DEAD: i32 = 6; // KVME_TYPE_DEAD
pub(crate) const KVME_TYPE_SG: i32 = 7; // KVME_TYPE_SG
pub(crate) const KVME_TYPE_MGTDEVICE: i32 = 8; // KVME_TYPE_MGTDEVICE
pub(crate) const KVME_TYPE_GUARD: i32 = 9; // KVME_TYPE_GUARD
pub(crate) const KVME_PROT_READ: i32 = 1; // KVME_PROT_READ
pub(crate) const KVME_PROT_WRITE: i32 = 2; // KVME_PROT_WRITE
pub(crate) const KVME_PROT_EXEC: i32 = 4; // KVME_PROT_EXEC
pub(crate) const KVME_FLAG_COW: i32 = 0x1; // KVME_FLAG_COW
pub(crate) const KVME_FLAG_GROWS_DOWN: i32 = 0x20; // KVME_FLAG_GROWS_DOWN
pub(crate) const KVME_FLAG_SYSVSHM: i32 = 0x80; // KVME_FLAG_SYSVSHM
pub(crate) const KVME_FLAG_POSIXSHM: i32 = 0x100; // KVME_FLAG_POSIXSHM

// An open file: struct kinfo_file
pub(crate) const KF_STRUCTSIZE: usize = 0; // offsetof(struct kinfo_file, kf_structsize)
pub(crate) const KF_FD: usize = 8; // offsetof(struct kinfo_file, kf_fd)
pub(crate) const KF_PATH: usize = 368; // offsetof(struct kinfo_file, kf_path)
pub(crate) const KF_FD_TYPE_ROOT: i32 = -2; // KF_FD_TYPE_ROOT

// ptrace
pub(crate) const PT_ATTACH: i32 = 10; // PT_ATTACH
pub(crate) const PT_DETACH: i32 = 11; // PT_DETACH
pub(crate) const PT_IO: i32 = 12; // PT_IO
pub(crate) const PT_LWPINFO: i32 = 13; // PT_LWPINFO
pub(crate) const PT_GETNUMLWPS: i32 = 14; // PT_GETNUMLWPS
pub(crate) const PT_GETLWPLIST: i32 = 15; // PT_GETLWPLIST
pub(crate) const PT_GETREGS: i32 = 33; // PT_GETREGS
pub(crate) const PT_VM_ENTRY: i32 = 41; // PT_VM_ENTRY
pub(crate) const PT_GETREGSET: i32 = 42; // arm64: PT_GETREGSET
pub(crate) const PT_GETFSBASE: i32 = 71; // amd64: PT_GETFSBASE
pub(crate) const PIOD_READ_D: i32 = 1; // PIOD_READ_D
pub(crate) const PTRACE_IO_DESC_BYTES: usize = 32; // sizeof(struct ptrace_io_desc)
pub(crate) const PIOD_OP: usize = 0; // offsetof(struct ptrace_io_desc, piod_op)
pub(crate) const PIOD_OFFS: usize = 8; // offsetof(struct ptrace_io_desc, piod_offs)
pub(crate) const PIOD_ADDR: usize = 16; // offsetof(struct ptrace_io_desc, piod_addr)
pub(crate) const PIOD_LEN: usize = 24; // offsetof(struct ptrace_io_desc, piod_len)
pub(crate) const PTRACE_LWPINFO_BYTES: usize = 160; // sizeof(struct ptrace_lwpinfo)
pub(crate) const PL_LWPID: usize = 0; // offsetof(struct ptrace_lwpinfo, pl_lwpid)
pub(crate) const PL_EVENT: usize = 4; // offsetof(struct ptrace_lwpinfo, pl_event)
pub(crate) const PL_FLAGS: usize = 8; // offsetof(struct ptrace_lwpinfo, pl_flags)
pub(crate) const PL_FLAG_SCE: i32 = 0x4; // PL_FLAG_SCE
pub(crate) const PL_FLAG_SCX: i32 = 0x8; // PL_FLAG_SCX
pub(crate) const PL_FLAG_EXEC: i32 = 0x10; // PL_FLAG_EXEC
pub(crate) const PL_FLAG_FORKED: i32 = 0x40; // PL_FLAG_FORKED
pub(crate) const PL_FLAG_CHILD: i32 = 0x80; // PL_FLAG_CHILD
pub(crate) const PL_FLAG_BORN: i32 = 0x100; // PL_FLAG_BORN
pub(crate) const PL_FLAG_EXITED: i32 = 0x200; // PL_FLAG_EXITED
pub(crate) const PL_FLAG_VFORKED: i32 = 0x400; // PL_FLAG_VFORKED
pub(crate) const PL_FLAG_VFORK_DONE: i32 = 0x800; // PL_FLAG_VFORK_DONE
pub(crate) const PTRACE_VM_ENTRY_BYTES: usize = 64; // sizeof(struct ptrace_vm_entry)
pub(crate) const PVE_ENTRY: usize = 0; // offsetof(struct ptrace_vm_entry, pve_entry)
pub(crate) const PVE_START: usize = 8; // offsetof(struct ptrace_vm_entry, pve_start)
pub(crate) const PVE_END: usize = 16; // offsetof(struct ptrace_vm_entry, pve_end)
pub(crate) const PVE_PROT: usize = 32; // offsetof(struct ptrace_vm_entry, pve_prot)

// Registers: struct reg
pub(crate) const REG_BYTES_AMD64: usize = 176; // amd64: sizeof(struct reg)
pub(crate) const REG_BYTES_ARM64: usize = 272; // arm64: sizeof(struct reg)
