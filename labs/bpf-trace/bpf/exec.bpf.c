/* Programs that begin, processes that end. */
#define FOLLOWS_ITSELF
#include "events.h"
#include "follow.h"

const volatile u32 failures_only = 0;

#define MAX_ERRNO 4095 /* include/linux/err.h */
#define TS_COMPAT 2    /* arch/x86/include/asm/thread_info.h: this call came through the 32-bit entry */
#define EXECVE 59      /* arch/x86/entry/syscalls/syscall_64.tbl */
#define EXECVEAT 322
#define SIGNAL_GROUP_EXIT 4 /* include/linux/sched/signal.h */

struct linux_binprm {
	const char *filename;
} CORE;

enum kind { EXEC, EXIT, FAILED };

#define PATH 4096
#define ARGS 16384
struct event {
	u64 at;   /* ns, CLOCK_MONOTONIC */
	u64 age;  /* ns since the process began */
	u64 args; /* bytes of arguments that there were */
	u32 kind;
	s32 result; /* EXIT: as wait(2) has it; FAILED: errno */
	u32 pid;    /* as the tracer's PID namespace has it */
	u32 inside; /* as its own has it */
	u32 parent;
	u32 uid;
	char comm[16];
	char parent_comm[16];
	u32 path_len, args_len; /* bytes of each that follow */
	char data[PATH + ARGS];
};
#define HEAD __builtin_offsetof(struct event, data)

/* Too large for the stack, which has 512 bytes. No two programs of ours are at work on a CPU at once: where they are
 * called, the kernel does not let others run. */
struct {
	__uint(type, PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct event);
} scratch SEC(".maps");

inline struct event *begin(struct task_struct *task, enum kind kind)
{
	struct task_struct *leader = task->group_leader, *parent = task->real_parent;
	struct pid *pid = leader->thread_pid;
	struct upid inside = {};
	u32 zero = 0;
	struct event *e = bpf_map_lookup_elem(&scratch, &zero);

	if (!e)
		return 0;
	e->at = bpf_ktime_get_ns();
	e->age = e->at - leader->start_time;
	e->args = 0;
	e->kind = kind;
	e->result = 0;
	e->pid = pid_of(task);
	bpf_probe_read_kernel(&inside, sizeof(inside), (void *)pid->numbers + pid->level * sizeof(inside));
	e->inside = inside.nr;
	e->parent = pid_of(parent);
	e->uid = bpf_get_current_uid_gid();
	bpf_probe_read_kernel(e->comm, sizeof(e->comm), leader->comm);
	bpf_probe_read_kernel(e->parent_comm, sizeof(e->parent_comm), parent->group_leader->comm);
	e->path_len = e->args_len = 0;
	return e;
}

SEC("tp_btf/sched_process_exec")
int sched_process_exec(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct linux_binprm *program = (void *)ctx[2];
	struct mm_struct *mm = task->mm;
	u64 start = mm->arg_start, len = mm->arg_end - start;
	struct event *e;
	long n;

	follow_exec(task);
	if (failures_only || !wanted(task) || !(e = begin(task, EXEC)))
		return 0;
	n = bpf_probe_read_kernel_str(e->data, PATH, program->filename);
	if (n < 0 || n > PATH)
		n = 0;
	e->path_len = n;
	e->args = len;
	if (len > ARGS)
		len = ARGS;
	/* The kernel has just copied them there for the new program: they are in memory. */
	if (bpf_probe_read_user(e->data + n, len, (void *)start)) {
		LOSE(unread);
		len = 0;
	}
	e->args_len = len;
	emit(e, HEAD + n + len);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int sched_process_fork(u64 *ctx)
{
	follow_fork((void *)ctx[0], (void *)ctx[1]);
	return 0;
}

/* A process ends with its last thread; how, is what wait(2) will say of it. */
SEC("tp_btf/sched_process_exit")
int sched_process_exit(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct signal_struct *signal = task->signal;
	struct event *e;
	s32 code;

	if (signal->live.counter != 0)
		return 0;
	code = signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : task->group_leader->exit_code;
	if (wanted(task) && !(failures_only && code == 0) && (e = begin(task, EXIT))) {
		e->result = code;
		emit(e, HEAD);
	}
	follow_exit(task);
	return 0;
}

/* Of a failed exec only the call itself tells. The registers still hold what it was called with. */
SEC("tp_btf/sys_exit")
int sys_exit(u64 *ctx)
{
	struct pt_regs *regs = (void *)ctx[0];
	struct task_struct *task;
	struct event *e;
	u64 nr = regs->orig_ax, path;
	s64 ret = ctx[1];
	long n;

	if ((nr != EXECVE && nr != EXECVEAT) || ret >= 0 || ret < -MAX_ERRNO)
		return 0;
	task = bpf_get_current_task_btf();
	if (task->thread_info.status & TS_COMPAT || !wanted(task) || !(e = begin(task, FAILED)))
		return 0;
	e->result = -ret;
	path = nr == EXECVE ? regs->di : regs->si;
	n = bpf_probe_read_user_str(e->data, PATH, (void *)path);
	if (n < 0 || n > PATH) {
		LOSE(unread);
		n = 0;
	}
	e->path_len = n;
	emit(e, HEAD + n);
	return 0;
}
