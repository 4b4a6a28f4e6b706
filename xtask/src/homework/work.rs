//! Work on all CPUs.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Does all jobs. `each` is told which of those that run at the same time it is.
pub(crate) fn side_by_side<T: Sync>(jobs: &[T], each: impl Fn(usize, &T) + Sync) {
    as_they_come(|add| jobs.iter().for_each(|job| add(Turn::InOrder, job)), each);
}

/// When a job is begun, of those that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It takes long: begun last, it would keep one CPU when the others have nothing left.
    First,
    InOrder,
}

/// Does jobs while `bring` still brings them; `each` as in [`side_by_side`].
pub(crate) fn as_they_come<T: Send, R>(
    bring: impl FnOnce(&dyn Fn(Turn, T)) -> R,
    each: impl Fn(usize, T) + Sync,
) -> R {
    let queue = Queue { waiting: Mutex::new((VecDeque::new(), false)), more: Condvar::new() };
    thread::scope(|scope| {
        for slot in 0..cpus() {
            let (queue, each) = (&queue, &each);
            scope.spawn(move || {
                while let Some(job) = queue.next() {
                    each(slot, job);
                }
            });
        }
        // Also if `bring` panics: whoever waits for more would wait for ever.
        let _last = Last(&queue);
        bring(&|turn, job| queue.add(turn, job))
    })
}

/// Jobs that wait, and whether those are all.
struct Queue<T> {
    waiting: Mutex<(VecDeque<T>, bool)>,
    more: Condvar,
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, (VecDeque<T>, bool)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, turn: Turn, job: T) {
        let mut waiting = self.lock();
        match turn {
            Turn::First => waiting.0.push_front(job),
            Turn::InOrder => waiting.0.push_back(job),
        }
        drop(waiting);
        self.more.notify_one();
    }

    /// The next; waits for it. None if there will be no more.
    fn next(&self) -> Option<T> {
        let waiting = self.lock();
        let empty = |w: &mut (VecDeque<T>, bool)| w.0.is_empty() && !w.1;
        let mut waiting = self.more.wait_while(waiting, empty).unwrap_or_else(PoisonError::into_inner);
        waiting.0.pop_front()
    }
}

/// When this goes, no more jobs come.
struct Last<'a, T>(&'a Queue<T>);

impl<T> Drop for Last<'_, T> {
    fn drop(&mut self) {
        self.0.lock().1 = true;
        self.0.more.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_jobs_are_done_once() {
        let _dog = kit::testing::watchdog(60);
        let done = Mutex::new(Vec::new());
        let each = |slot: usize, job: usize| {
            assert!(slot < cpus());
            done.lock().unwrap().push(job);
        };
        let brought = as_they_come(
            |add| {
                for job in 0..1000 {
                    add(if job % 3 == 0 { Turn::First } else { Turn::InOrder }, job);
                }
                "all"
            },
            each,
        );
        assert_eq!(brought, "all");
        side_by_side(&(1000..1100).collect::<Vec<_>>(), |slot, job| each(slot, *job));
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..1100).collect::<Vec<_>>());
    }

    #[test]
    fn what_takes_long_is_begun_first() {
        let queue = Queue { waiting: Mutex::new((VecDeque::new(), false)), more: Condvar::new() };
        queue.add(Turn::InOrder, 1);
        queue.add(Turn::InOrder, 2);
        queue.add(Turn::First, 3);
        drop(Last(&queue));
        assert_eq!([(); 4].map(|()| queue.next()), [Some(3), Some(1), Some(2), None]);
    }

    #[test]
    fn a_panic_of_who_brings_leaves_nobody_waiting() {
        let _dog = kit::testing::watchdog(60);
        let outcome = std::panic::catch_unwind(|| {
            as_they_come(|_: &dyn Fn(Turn, u8)| panic!("no more"), |_, _| ());
        });
        assert!(outcome.is_err());
    }
}
