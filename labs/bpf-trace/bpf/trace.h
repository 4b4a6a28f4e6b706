/* What every program here needs, and nothing else: no vmlinux.h, no libbpf.
 *
 * Naming, which the loader (src/tracer.rs) goes by: a function is called after the tracepoint that it is for, alone
 * or behind raw_ or tp_: sys_exit in tp_btf/sys_exit, raw_sys_exit in raw_tp/sys_exit, tp_sys_exit in
 * tp/raw_syscalls/sys_exit. The loader takes the first of the three that this kernel lets it attach.
 */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define inline static inline __attribute__((always_inline))

char LICENSE[] SEC("license") = "GPL";

/* Maps, described to the loader by BTF: the members are pointers whose types carry the values. */
#define __uint(name, value) int (*name)[value]
#define __type(name, type) type *name
enum { HASH = 1, ARRAY = 2, PERCPU_HASH = 5, PERCPU_ARRAY = 6, STACK_TRACE = 7, RINGBUF = 27, TASK_STORAGE = 29 };
enum { BPF_ANY = 0, BPF_NOEXIST = 1, BPF_F_NO_PREALLOC = 1, BPF_F_USER_STACK = 256, BPF_LOCAL_STORAGE_GET_F_CREATE = 1 };

/* Helpers, by number: enum bpf_func_id in include/uapi/linux/bpf.h. */
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static u64 (*bpf_get_current_uid_gid)(void) = (void *)15;
static long (*bpf_get_current_comm)(void *buf, u32 size) = (void *)16;
static long (*bpf_get_stackid)(void *ctx, void *map, u64 flags) = (void *)27;
static long (*bpf_get_stack)(void *ctx, void *buf, u32 size, u64 flags) = (void *)67;
static u64 (*bpf_get_current_cgroup_id)(void) = (void *)80;
static long (*bpf_probe_read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*bpf_probe_read_user_str)(void *to, u32 size, const void *from) = (void *)114;
static long (*bpf_probe_read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static long (*bpf_ringbuf_output)(void *ringbuf, const void *data, u64 size, u64 flags) = (void *)130;
static void *(*bpf_ringbuf_reserve)(void *ringbuf, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, u64 flags) = (void *)132;
static void (*bpf_ringbuf_discard)(void *data, u64 flags) = (void *)133;
static u64 (*bpf_ringbuf_query)(void *ringbuf, u64 what) = (void *)134;
static void *(*bpf_task_storage_get)(void *map, void *task, void *value, u64 flags) = (void *)156;
static void *(*bpf_get_current_task_btf)(void) = (void *)158;

/* What is read of the kernel's structures. Only names and types matter: the loader puts in the offsets that the
 * running kernel's BTF gives (CO-RE). */
#define CORE __attribute__((preserve_access_index))

struct pt_regs {
	u64 r10, dx, si, di; /* a system call's arguments, from the fourth to the first */
	u64 orig_ax;
	u64 sp;
} CORE;

struct thread_info {
	u32 status;
} CORE;

typedef struct {
	s32 counter;
} atomic_t;

struct signal_struct {
	atomic_t live; /* threads that have not ended */
	s32 group_exit_code;
	u32 flags;
} CORE;

struct ns_common {
	u32 inum;
} CORE;

struct pid_namespace {
	struct ns_common ns;
} CORE;

struct upid {
	s32 nr;
	struct pid_namespace *ns;
};

/* A process id: a number in each PID namespace that it is seen in, from the outermost on. */
struct pid {
	u32 level;
	struct upid numbers[1];
} CORE;

struct mm_struct {
	u64 arg_start, arg_end;
} CORE;

struct task_struct {
	struct thread_info thread_info;
	s32 pid;
	s32 tgid;
	s32 exit_code;
	struct task_struct *real_parent, *group_leader;
	struct pid *thread_pid;
	struct mm_struct *mm; /* none: a thread of the kernel */
	struct files_struct *files;
	struct fs_struct *fs;
	u64 start_time; /* ns, CLOCK_MONOTONIC */
	struct signal_struct *signal;
	char comm[16];
	s32 on_cpu;
	u32 __state;
	const struct cred *cred;
	struct css_set *cgroups;
} CORE;

typedef struct {
	u32 val;
} kuid_t;

struct cred {
	kuid_t uid;
} CORE;

struct kernfs_node {
	u64 id;
} CORE;

struct cgroup {
	struct kernfs_node *kn;
} CORE;

struct css_set {
	struct cgroup *dfl_cgrp; /* of version 2 */
} CORE;

/* The filter. Set before the program is loaded: .rodata is frozen then, so the verifier knows the values and drops
 * the branches that they rule out. What nobody asked for costs a load each, and no more. */
const volatile u32 self_tgid = 0;   /* the tracer, never traced: as the outermost PID namespace knows it */
const volatile u32 self_tid = 0;    /* its thread that starts the command */
const volatile u32 only_pid = 0;    /* 0: all */
const volatile u32 only_tid = 0;    /* 0: all */
const volatile u32 by_uid = 0;      /* whether only_uid counts: uid 0 is a user, too */
const volatile u32 only_uid = 0;
const volatile u64 only_cgroup = 0; /* 0: all; the inode number of its folder */
const volatile u32 by_comm = 0;
const volatile char only_comm[16] = {};
const volatile u32 follow = 0;      /* only what descends from the tracer's command */

/* Whose numbers processes and threads are told by, and asked for: those of the tracer's PID namespace. */
const volatile u32 pid_namespace = 0; /* its inode number; 0: the outermost, where a task keeps its number itself */
#define MAX_PID_NS_LEVEL 32           /* include/linux/pid_namespace.h */

/* A thread's number there; 0: it has none. */
static __attribute__((noinline)) u32 number_there(struct task_struct *task)
{
	struct pid *pid = task->thread_pid;

	for (u32 i = 0; i <= MAX_PID_NS_LEVEL; i++) {
		struct upid number = {};
		u32 inum = 0;
		if (i > pid->level || bpf_probe_read_kernel(&number, sizeof(number), (void *)pid->numbers + i * sizeof(number)))
			break;
		bpf_probe_read_kernel(&inum, sizeof(inum), &number.ns->ns.inum);
		if (inum == pid_namespace)
			return number.nr;
	}
	return 0;
}

inline u32 tid_of(struct task_struct *task)
{
	return pid_namespace ? number_there(task) : task->pid;
}

/* A process's number is that of its first thread. */
inline u32 pid_of(struct task_struct *task)
{
	return pid_namespace ? number_there(task->group_leader) : task->tgid;
}

/* Processes that descend from the command. */
struct {
	__uint(type, HASH);
	__uint(max_entries, 32768);
	__type(key, u32);
	__type(value, u8);
} followed SEC(".maps");

/* What could not be kept, by reason: each is shown. */
struct {
	u64 ring_full;
	u64 map_full;
	u64 unread; /* a string in memory that could not be read just then */
} lost;
#define LOSE(reason) __sync_fetch_and_add(&lost.reason, 1)

/* Whether a task is one to be traced: the current one, or that which the scheduler is about to wake or to run. */
inline int wanted(struct task_struct *task)
{
	u32 tgid = task->tgid;

	if (tgid == self_tgid)
		return 0;
	if (only_pid && pid_of(task) != only_pid)
		return 0;
	if (only_tid && tid_of(task) != only_tid)
		return 0;
	if (by_uid && task->cred->uid.val != only_uid)
		return 0;
	if (only_cgroup && task->cgroups->dfl_cgrp->kn->id != only_cgroup)
		return 0;
	if (by_comm) {
		char comm[16];
		bpf_probe_read_kernel(comm, sizeof(comm), task->comm);
		for (int i = 0; i < 16; i++) {
			if (comm[i] != only_comm[i])
				return 0;
			if (!comm[i])
				break;
		}
	}
	if (follow && !bpf_map_lookup_elem(&followed, &tgid))
		return 0;
	return 1;
}
