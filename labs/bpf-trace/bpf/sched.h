/* What sched_switch says of the task that leaves the CPU.
 *
 * Naming: old_sched_switch is for kernels before 5.18, which do not hand over the state; the loader takes it where
 * the verifier refuses sched_switch for reading an argument that is not there. */
#pragma once
#include "trace.h"

/* enum of include/linux/sched.h. With none of these bits the task would like to go on running. */
#define TASK_INTERRUPTIBLE 1
#define TASK_UNINTERRUPTIBLE 2
#define EXIT_DEAD 0x10
#define EXIT_ZOMBIE 0x20
#define TASK_DEAD 0x80
#define TASK_NOLOAD 0x400

/* Before 5.14 the member had another name. */
struct task_struct___before_5_14 {
	s64 state;
} CORE;

#define FIELD_EXISTS 2 /* enum bpf_field_info_kind */
#define exists(member) __builtin_preserve_field_info(member, FIELD_EXISTS)

inline u32 state_of(struct task_struct *task)
{
	if (exists(task->__state))
		return task->__state;
	return ((struct task_struct___before_5_14 *)task)->state;
}

/* Whether a task that leaves the CPU stays on the run queue: it gave way, or was made to. One that is preempted just
 * before it goes to sleep has a state already, but is not asleep. One that did go to sleep may have been woken again
 * while its CPU was looking for another task, with the queue unlocked: its state as it is now says so. */
inline int still_runnable(int preempted, struct task_struct *task, u32 state)
{
	return preempted || state == 0 || state_of(task) == 0;
}
