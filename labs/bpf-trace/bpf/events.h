/* Events for the reader outside: records in a ring buffer, in the order in which they were written. */
#pragma once
#include "trace.h"

enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2, BPF_RB_AVAIL_DATA = 0 };

#define WAKE_AT (1 << 20)
struct {
	__uint(type, RINGBUF);
	__uint(max_entries, 16 << 20);
} events SEC(".maps");

/* The reader looks by itself, fifty times a second: to wake it costs more than an event does. It is woken once when a
 * mebibyte waits for it. */
inline void emit(const void *record, u32 len)
{
	u64 waiting = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);
	int crosses = waiting < WAKE_AT && waiting + len >= WAKE_AT;

	if (bpf_ringbuf_output(&events, record, len, crosses ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP))
		LOSE(ring_full);
}
