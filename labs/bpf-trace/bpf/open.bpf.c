/* Files that are opened: what was asked for, and what came of it. */
#include "events.h"
#include "follow.h"

const volatile u32 failures_only = 0;
const volatile u32 timing = 0;      /* whether to time calls: one more program, at their entry */
const volatile u64 slower_than = 0; /* ns; needs timing */

#define MAX_ERRNO 4095 /* include/linux/err.h */
#define TS_COMPAT 2    /* arch/x86/include/asm/thread_info.h: this call came through the 32-bit entry */
#define AT_FDCWD -100
#define RESOLVE_IN_ROOT 0x10
#define O_CREAT_TRUNC_WRONLY 01101

/* arch/x86/entry/syscalls/syscall_64.tbl */
enum call { OPEN = 2, CREAT = 85, OPENAT = 257, OPENAT2 = 437 };

#define PATH 4096
#define FOLDER 4096
#define NAME 256
struct event {
	u64 at; /* ns, CLOCK_MONOTONIC */
	u64 ns; /* how long it took; 0 unless timing */
	u64 flags;
	u64 resolve; /* of openat2 */
	u32 mode;
	u32 call;
	s32 result; /* a descriptor, or -errno */
	s32 folder; /* the descriptor that the path is relative to */
	u32 pid, tid, uid;
	u32 folder_cut; /* whether the folder's path is longer than what follows */
	char comm[16];
	u32 path_len, folder_len; /* bytes of each that follow */
	char data[PATH + FOLDER];
};
#define HEAD __builtin_offsetof(struct event, data)

/* Too large for the stack, which has 512 bytes. The kernel lets nobody else run on this CPU meanwhile. */
struct {
	__uint(type, PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct event);
} scratch SEC(".maps");

/* When the task's call began. */
struct {
	__uint(type, TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, u64);
} begun SEC(".maps");

inline int opens(u64 nr)
{
	return nr == OPENAT || nr == OPEN || nr == OPENAT2 || nr == CREAT;
}

/* The folder that a relative path begins at. As the kernel keeps it: a dentry, which knows its own name and its parent,
 * and the mount that it is in, which knows where it is mounted. */
struct qstr {
	const u8 *name;
} CORE;

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
} CORE;

struct vfsmount {
	struct dentry *mnt_root;
} CORE;

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
} CORE;

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
} CORE;

struct fs_struct {
	struct path root, pwd;
} CORE;

struct file {
	struct path f_path;
} CORE;

struct fdtable {
	u32 max_fds;
	struct file **fd;
} CORE;

struct files_struct {
	struct fdtable *fdt;
} CORE;

#define READ(to, from) bpf_probe_read_kernel(&(to), sizeof(to), &(from))

/* Names and mounts to climb. */
#define DEPTH 64

/* Writes the names from `folder` up to the root of the process behind what `e` holds already, each ended by a NUL. */
inline void read_folder(struct event *e, struct task_struct *task, s32 folder)
{
	struct fs_struct *fs = task->fs;
	struct dentry *dentry, *root, *above;
	struct vfsmount *mnt, *root_mnt;
	u32 at;

	READ(root, fs->root.dentry);
	READ(root_mnt, fs->root.mnt);
	if (folder == AT_FDCWD) {
		READ(dentry, fs->pwd.dentry);
		READ(mnt, fs->pwd.mnt);
	} else {
		struct fdtable *table = task->files->fdt;
		struct file **files, *file = 0;
		if (folder < 0 || (u32)folder >= table->max_fds)
			return;
		files = table->fd;
		bpf_probe_read_kernel(&file, sizeof(file), files + folder);
		if (!file)
			return;
		READ(dentry, file->f_path.dentry);
		READ(mnt, file->f_path.mnt);
	}
	e->folder_cut = 1;
	for (int i = 0; i < DEPTH; i++) {
		struct dentry *top;
		const u8 *name;
		long n;

		if (dentry == root && mnt == root_mnt) {
			e->folder_cut = 0;
			break;
		}
		READ(above, dentry->d_parent);
		READ(top, mnt->mnt_root);
		if (dentry == top || dentry == above) {
			/* The top of a mount: on at the place where it is mounted. */
			struct mount *mount = (void *)mnt - (u64)&((struct mount *)0)->mnt, *parent;
			READ(parent, mount->mnt_parent);
			if (parent == mount || !parent) {
				e->folder_cut = 0;
				break;
			}
			READ(dentry, mount->mnt_mountpoint);
			mnt = &parent->mnt;
			continue;
		}
		/* Where to write is kept in the event and read again each time: of what is in a map the verifier knows
		 * nothing, so all ways that lead here are one to it. In a register it would be a range that each name
		 * widens, and each mixture of names and mounts a way of its own: two thousand of them. */
		at = e->path_len + e->folder_len;
		if (at > PATH + FOLDER - NAME)
			break;
		READ(name, dentry->d_name.name);
		n = bpf_probe_read_kernel_str(e->data + at, NAME, name);
		if (n < 0 || n > NAME)
			break;
		e->folder_len += n;
		dentry = above;
	}
	/* The root itself: one empty name, so that it can be told from nothing. */
	at = e->path_len;
	if (!e->folder_len && !e->folder_cut && at < PATH + FOLDER) {
		e->data[at] = 0;
		e->folder_len = 1;
	}
}

/* The arguments are still in the registers, and by now the path is in memory: the kernel has just read it. */
SEC("tp_btf/sys_exit")
int sys_exit(u64 *ctx)
{
	struct pt_regs *regs = (void *)ctx[0];
	struct task_struct *task;
	u64 nr = regs->orig_ax, path, *start, ns = 0;
	s64 ret = ctx[1];
	u32 zero = 0, size;
	struct event *e;
	long n;

	if (!opens(nr) || (failures_only && (ret >= 0 || ret < -MAX_ERRNO)))
		return 0;
	task = bpf_get_current_task_btf();
	/* In the table of 32-bit programs these numbers are other calls. */
	if (task->thread_info.status & TS_COMPAT || !wanted(task))
		return 0;
	if (timing) {
		start = bpf_task_storage_get(&begun, task, 0, 0);
		if (start && *start) {
			ns = bpf_ktime_get_ns() - *start;
			*start = 0;
		}
		if (ns < slower_than)
			return 0;
	}
	e = bpf_map_lookup_elem(&scratch, &zero);
	if (!e)
		return 0;
	e->at = bpf_ktime_get_ns();
	e->ns = ns;
	e->call = nr;
	e->result = ret;
	e->pid = pid_of(task);
	e->tid = tid_of(task);
	e->uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	e->folder = AT_FDCWD;
	e->resolve = 0;
	e->folder_len = e->folder_cut = 0;
	if (nr == OPENAT || nr == OPENAT2) {
		e->folder = regs->di;
		path = regs->si;
	} else {
		path = regs->di;
	}
	if (nr == OPENAT) {
		e->flags = (u32)regs->dx;
		e->mode = regs->r10;
	} else if (nr == OPEN) {
		e->flags = (u32)regs->si;
		e->mode = regs->dx;
	} else if (nr == CREAT) {
		e->flags = O_CREAT_TRUNC_WRONLY;
		e->mode = regs->si;
	} else {
		struct { u64 flags, mode, resolve; } how = {};
		bpf_probe_read_user(&how, sizeof(how), (void *)regs->dx);
		e->flags = how.flags;
		e->mode = how.mode;
		e->resolve = how.resolve;
	}
	n = bpf_probe_read_user_str(e->data, PATH, (void *)path);
	if (n <= 0 || n > PATH) {
		LOSE(unread);
		n = 0;
	}
	e->path_len = n;
	if (n && (e->data[0] != '/' || e->resolve & RESOLVE_IN_ROOT))
		read_folder(e, task, e->folder);
	size = HEAD + e->path_len + e->folder_len;
	if (size > sizeof(*e))
		size = sizeof(*e);
	emit(e, size);
	return 0;
}

SEC("tp_btf/sys_enter")
int sys_enter(u64 *ctx)
{
	struct task_struct *task;
	u64 *start;

	if (!opens(ctx[1]))
		return 0;
	task = bpf_get_current_task_btf();
	if (!wanted(task))
		return 0;
	start = bpf_task_storage_get(&begun, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (start)
		*start = bpf_ktime_get_ns();
	else
		LOSE(map_full);
	return 0;
}
