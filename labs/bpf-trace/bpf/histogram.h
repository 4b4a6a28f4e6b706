/* A histogram with four buckets to a power of two: whatever the value, it is known to a fifth. */
#pragma once
#include "trace.h"

#define BUCKETS 160
struct histogram {
	u64 sum;
	u64 max;
	u32 buckets[BUCKETS];
};

inline u32 bucket_of(u64 value)
{
	u64 rest = value;
	u32 log = 0;

	if (value < 8)
		return value; /* 0 to 7 have a bucket each */
	/* BPF has no instruction for it: the logarithm by halves. */
	if (rest >> 32) { log += 32; rest >>= 32; }
	if (rest >> 16) { log += 16; rest >>= 16; }
	if (rest >> 8) { log += 8; rest >>= 8; }
	if (rest >> 4) { log += 4; rest >>= 4; }
	if (rest >> 2) { log += 2; rest >>= 2; }
	if (rest >> 1) log += 1;
	/* The power of two, then the two bits that follow the first. */
	return (log - 1) * 4 + ((value >> (log - 2)) & 3);
}

inline void histogram_add(struct histogram *h, u64 value)
{
	u32 bucket = bucket_of(value);

	if (bucket >= BUCKETS)
		bucket = BUCKETS - 1;
	h->sum += value;
	if (value > h->max)
		h->max = value;
	h->buckets[bucket]++;
}
