//! The judgement of machines that are not at hand.

use super::*;

fn failed<T>(call: &'static str, errno: i32) -> Answer<T> {
    Err(SysError::new(call, errno))
}

/// A machine where everything works.
fn perfect() -> Answers {
    Answers {
        who: Who::default(),
        kvm: Some(Ok(kvm::Kvm {
            device: Some(kvm::Device { owner: 0, group: "kvm".into(), mode: 0o660 }),
            halt: Ok(kvm::Halt { api: 12, exit_reason: 5, ms: 0.6 }),
            speed: Ok(kvm::Emulation { instructions: 1002, emulated: 0, us: 30.0 }),
            dirty_ring: Ok(()),
        })),
        uring: Some(Ok(uring::Uring {
            ring: Ok((63, u32::MAX)),
            sqpoll: Ok(()),
            defer_taskrun: Ok(()),
            buffer_ring: Ok(()),
            disabled: Some(0),
        })),
        process: Some(Ok(process::Process {
            clone3: Ok(()),
            set_tid: Ok(()),
            set_tid_userns: Ok(()),
            into_cgroup: Ok(()),
            pidfd: Ok(()),
            pidfd_info: Ok(7),
            pidfd_getfd: Ok(()),
            userns: Ok(()),
            userns_caps: Ok(()),
            ptrace: Ok(()),
            ptrace_scope: None,
            max_user_namespaces: Some(1000),
            userns_clone: None,
            apparmor_userns: None,
        })),
        core: Some(Ok(core::Core {
            pattern: Ok("core".into()),
            pattern_writable: true,
            limit: Ok((0, libc::RLIM_INFINITY)),
            coredump_info: Ok(0x17),
        })),
        rseq: Some(Ok(rseq::Rseq {
            register: failed("rseq", libc::EINVAL),
            libc: Some((2336, 32)),
            cpu_id: Some(0),
            mm_cid: Some(0),
            feature_size: 28,
            slice: Ok(()),
            membarrier: Ok(()),
        })),
        bpf: Some(Ok(bpf::Bpf {
            load: Ok(()),
            raw_tp: Ok(()),
            tp_btf: Ok(()),
            fentry: Ok(()),
            kprobe: Ok(()),
            uprobe: Some(Ok(())),
            btf: Ok(5_000_000),
            unprivileged_disabled: Some(2),
        })),
        tracing: Some(Ok(tracing::Tracing {
            mounted: Ok("/sys/kernel/tracing"),
            private: Ok(()),
            software: Ok(()),
            hardware: Ok(40_000),
            paranoid: Some(1),
        })),
        cgroup: Some(Ok(cgroup::Cgroup {
            v2: Ok(cgroup::Made {
                parent: "/sys/fs/cgroup".into(),
                controllers: "cpu memory pids".into(),
                kill: true,
                freeze: true,
            }),
            v1: vec![("pids".into(), Ok(()))],
        })),
        noise: None,
    }
}

/// The finding of `name` after `change` to a perfect machine.
macro_rules! judged {
    ($name:expr, $area:ident, $($change:tt)+) => {{
        let mut answers = perfect();
        {
            #[allow(unused_mut, reason = "not every change writes through the binding")]
            let mut $area = answers.$area.as_mut().expect("asked").as_mut().expect("answered");
            $($change)+;
        }
        judge(&answers).into_iter().find(|f| f.name == $name).expect("judged")
    }};
}

#[test]
fn a_perfect_machine_has_every_finding_in_order_and_ok() {
    let findings = judge(&perfect());
    let names: Vec<_> = findings.iter().map(|f| f.name).collect();
    assert_eq!(names, NAMES);
    for finding in findings {
        assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
        assert_eq!((finding.fix, finding.errno), (None, None));
    }
}

#[test]
fn what_nobody_asked_is_not_judged() {
    let names: Vec<_> = judge(&Answers::default()).iter().map(|f| f.name).collect();
    assert_eq!(names, ["lockdown", "caps"]);
}

#[test]
fn an_area_that_hangs_is_a_no_for_each_of_its_names() {
    let mut answers = perfect();
    answers.uring = Some(failed("probe", libc::ETIMEDOUT));
    let findings = judge(&answers);
    assert_eq!(findings.len(), NAMES.len());
    let no: Vec<_> = findings.iter().filter(|f| !f.works()).map(|f| f.name).collect();
    assert_eq!(no, uring::NAMES);
    assert_eq!(findings[3].errno.as_deref(), Some("ETIMEDOUT"));
}

#[test]
fn kvm_forbidden_names_the_group_and_the_fix() {
    let mut answers = perfect();
    answers.who.uid = 1000;
    answers.kvm.as_mut().unwrap().as_mut().unwrap().halt = failed("open(\"/dev/kvm\")", libc::EACCES);
    let kvm = &judge(&answers)[0];
    assert_eq!(kvm.verdict, Verdict::No);
    assert_eq!(kvm.what, "open(\"/dev/kvm\") = EACCES");
    assert_eq!(kvm.evidence, "you are uid 1000; /dev/kvm belongs to root:kvm, mode 0660");
    let fix = kvm.fix.as_ref().unwrap();
    assert_eq!(
        fix.to_string(),
        "sudo usermod -aG kvm $USER, then log in again (root; survives reboot; lets you run VMs)"
    );
}

#[test]
fn kvm_absent_busy_broken_and_emulating() {
    let absent = judged!("kvm", kvm, {
        kvm.device = None;
        kvm.halt = failed("open(\"/dev/kvm\")", libc::ENOENT)
    });
    assert!(absent.fix.unwrap().command.contains("modprobe"));
    let busy = judged!("kvm", kvm, kvm.halt = failed("KVM_CREATE_VM", libc::EBUSY));
    assert!(busy.evidence.contains("another hypervisor"));
    let broken = judged!("kvm", kvm, kvm.halt = Ok(kvm::Halt { api: 12, exit_reason: 9, ms: 1.0 }));
    assert!(!broken.works() && broken.evidence.contains("exit reason 9"));
    let slow = judged!("kvm.speed", kvm, {
        kvm.speed = Ok(kvm::Emulation { instructions: 1002, emulated: 1002, us: 1000.0 })
    });
    assert_eq!(slow.verdict, Verdict::Note);
    let old = judged!("kvm.speed", kvm, kvm.speed = failed("KVM_GET_STATS_FD", libc::ENOTTY));
    assert!(old.evidence.contains("5.14"));
    let no_ring = judged!("kvm.dirty_ring", kvm, kvm.dirty_ring = failed("KVM_ENABLE_CAP", libc::EINVAL));
    assert!(no_ring.evidence.contains("5.11"));
}

#[test]
fn io_uring_tells_sysctl_filter_and_old_kernel_apart() {
    let by_sysctl = judged!("io_uring", uring, {
        uring.ring = failed("io_uring_setup", libc::EPERM);
        uring.disabled = Some(2)
    });
    assert_eq!(by_sysctl.evidence, "kernel.io_uring_disabled = 2");
    assert!(by_sysctl.fix.unwrap().root);
    let by_filter = judged!("io_uring", uring, uring.ring = failed("io_uring_setup", libc::EPERM));
    assert!(by_filter.evidence.contains("seccomp"));
    let none = judged!("io_uring", uring, uring.ring = failed("io_uring_setup", libc::ENOSYS));
    assert_eq!(none.evidence, "needs Linux 5.1, or a filter hides it");
    assert!(none.fix.unwrap().survives_reboot);
    let no_memory = judged!("io_uring", uring, uring.ring = failed("io_uring_setup", libc::ENOMEM));
    assert!(no_memory.evidence.contains("RLIMIT_MEMLOCK"));
    let old = judged!("io_uring.defer_taskrun", uring, {
        uring.defer_taskrun = failed("io_uring_setup", libc::EINVAL)
    });
    assert_eq!(old.evidence, "needs Linux 6.1");
    let no_bundle = judged!("io_uring.bundle", uring, uring.ring = Ok((50, 0)));
    assert!(!no_bundle.works() && no_bundle.evidence.contains("6.10"));
}

#[test]
fn clone3_and_pidfd() {
    let old = judged!("clone3", process, process.clone3 = failed("clone3", libc::ENOSYS));
    assert_eq!(old.evidence, "needs Linux 5.3, or a filter hides it");
    let filtered = judged!("clone3", process, process.clone3 = failed("clone3", libc::EPERM));
    assert!(filtered.evidence.contains("seccomp"));
    let namespaced =
        judged!("clone3.set_tid", process, process.set_tid = failed("clone3(set_tid)", libc::EPERM));
    assert_eq!(namespaced.verdict, Verdict::Note);
    let refused = judged!("clone3.set_tid", process, {
        process.set_tid = failed("clone3(set_tid)", libc::EPERM);
        process.set_tid_userns = failed("clone3", libc::ENOSPC)
    });
    assert!(!refused.works() && refused.fix.is_some());
    let not_ours = judged!("clone3.into_cgroup", process, {
        process.into_cgroup = failed("clone3(CLONE_INTO_CGROUP)", libc::EACCES)
    });
    assert!(not_ours.fix.unwrap().command.contains("Delegate"));
    let no_info =
        judged!("pidfd.info", process, process.pidfd_info = failed("ioctl(PIDFD_GET_INFO)", libc::ENOTTY));
    assert_eq!((no_info.works(), no_info.evidence.as_str()), (false, "needs Linux 6.13"));
}

#[test]
fn user_namespaces_have_four_ways_to_be_refused() {
    let evidence = |f: Finding| {
        assert!(!f.works(), "{f:?}");
        f.evidence
    };
    let apparmor = judged!("userns", process, {
        process.userns_caps = failed("unshare(CLONE_NEWNS)", libc::EPERM);
        process.apparmor_userns = Some(1)
    });
    assert!(evidence(apparmor).contains("apparmor"));
    let debian = judged!("userns", process, {
        process.userns = failed("unshare(CLONE_NEWUSER)", libc::EPERM);
        process.userns_clone = Some(0)
    });
    assert!(evidence(debian).contains("unprivileged_userns_clone"));
    let full = judged!("userns", process, process.userns = failed("unshare(CLONE_NEWUSER)", libc::ENOSPC));
    assert!(evidence(full).contains("max_user_namespaces"));
    let none = judged!("userns", process, process.userns = failed("unshare(CLONE_NEWUSER)", libc::EINVAL));
    assert_eq!(evidence(none), "the kernel has none");
}

#[test]
fn ptrace_and_yama() {
    let own_children = judged!("ptrace", process, process.ptrace_scope = Some(1));
    assert_eq!(own_children.verdict, Verdict::Note);
    let admin_only = judged!("ptrace", process, {
        process.ptrace = failed("ptrace(PTRACE_SEIZE)", libc::EPERM);
        process.ptrace_scope = Some(2)
    });
    assert_eq!(admin_only.fix.unwrap().command, "sudo sysctl kernel.yama.ptrace_scope=1");
}

#[test]
fn core_dumps() {
    let piped =
        judged!("core_pattern", core, core.pattern = Ok("|/usr/lib/systemd/systemd-coredump %P".into()));
    assert!(!piped.works() && piped.fix.is_some());
    let empty = judged!("core_pattern", core, core.pattern = Ok(String::new()));
    assert!(!empty.works());
    let zero = judged!("rlimit_core", core, core.limit = Ok((0, 0)));
    assert!(zero.evidence.contains("hard limit 0"));
    let old = judged!("coredump_socket", core, core.coredump_info = Ok(7));
    assert!(!old.works() && old.evidence.contains("6.16"));
    let not_ours = judged!("coredump_socket", core, core.pattern_writable = false);
    assert!(not_ours.fix.unwrap().root);
}

#[test]
fn rseq_by_libc_by_us_or_not_at_all() {
    let ours = judged!("rseq", rseq, {
        rseq.register = Ok(());
        rseq.libc = None
    });
    assert!(ours.works());
    let hidden = judged!("rseq", rseq, rseq.libc = None);
    assert!(!hidden.works() && hidden.evidence.contains("somebody"));
    let none = judged!("rseq", rseq, rseq.register = failed("rseq", libc::ENOSYS));
    assert!(none.evidence.contains("4.18"));
    let no_cid = judged!("rseq.mm_cid", rseq, rseq.feature_size = 0);
    assert!(!no_cid.works());
    let mut answers = perfect();
    answers.who.release = "6.18.44-x".into();
    answers.rseq.as_mut().unwrap().as_mut().unwrap().slice = failed("prctl", libc::EINVAL);
    let slice = judge(&answers).into_iter().find(|f| f.name == "rseq.slice").unwrap();
    assert_eq!(slice.evidence, "kernel 6.18 has none (7.0 does)");
}

#[test]
fn bpf_refused_to_users_to_root_by_lockdown_and_missing() {
    let refused = || failed("bpf(BPF_PROG_LOAD)", libc::EPERM);
    let fentry = |who: Who| {
        let mut answers = Answers { who, ..perfect() };
        answers.bpf.as_mut().unwrap().as_mut().unwrap().fentry = refused();
        judge(&answers).into_iter().find(|f| f.name == "bpf.fentry").unwrap()
    };
    let user = fentry(Who { uid: 1000, caps: 0, ..Who::default() });
    assert!(user.evidence.contains("CAP_BPF") && user.fix.is_some());
    // What the two capabilities allow is refused for another reason; what they do not allow, is not.
    let both = || Who { uid: 1000, caps: 3 << 38, lockdown: Ok("[integrity]".into()), ..Who::default() };
    assert!(fentry(both()).evidence.starts_with("lockdown"));
    let mut answers = Answers { who: both(), ..perfect() };
    answers.bpf.as_mut().unwrap().as_mut().unwrap().uprobe =
        Some(failed("perf_event_open(uprobe)", libc::EACCES));
    let uprobe = judge(&answers).into_iter().find(|f| f.name == "bpf.uprobe").unwrap();
    assert!(uprobe.evidence.contains("CAP_SYS_ADMIN"));
    let locked = fentry(Who { lockdown: Ok("none [integrity] confidentiality".into()), ..Who::default() });
    assert_eq!(locked.evidence, "lockdown: integrity; empty verifier log");
    let root = fentry(Who::default());
    assert!(root.evidence.starts_with("refused to root") && root.fix.is_none());
    let missing = judged!("bpf.kprobe", bpf, bpf.kprobe = failed("open(\"…/kprobe/type\")", libc::ENOENT));
    assert_eq!(missing.evidence, "the kernel was built without it");
    let no_btf = judged!("btf", bpf, bpf.btf = failed("open(\"/sys/kernel/btf/vmlinux\")", libc::ENOENT));
    assert!(no_btf.fix.unwrap().command.contains("CONFIG_DEBUG_INFO_BTF"));
}

#[test]
fn tracefs_and_perf() {
    let private = judged!("tracefs", tracing, tracing.mounted = failed("open(…)", libc::ENOENT));
    assert_eq!(private.verdict, Verdict::Note);
    let nothing = judged!("tracefs", tracing, {
        tracing.mounted = failed("open(…)", libc::ENOENT);
        tracing.private = failed("mount(tracefs)", libc::ENODEV)
    });
    assert!(nothing.evidence.contains("ENODEV"));
    let paranoid = judged!("perf_event", tracing, {
        tracing.software = failed("perf_event_open", libc::EACCES);
        tracing.paranoid = Some(3)
    });
    assert_eq!(paranoid.evidence, "kernel.perf_event_paranoid = 3");
    let no_pmu =
        judged!("perf_event.hw", tracing, tracing.hardware = failed("perf_event_open", libc::ENOENT));
    assert!(no_pmu.evidence.contains("virtual"));
}

#[test]
fn cgroups() {
    let bare = judged!("cgroup2", cgroup, cgroup.v2.as_mut().unwrap().controllers = "hugetlb".into());
    assert_eq!(
        (bare.verdict, bare.what.as_str()),
        (Verdict::Note, "made a group, without cpu, memory, pids")
    );
    let not_ours = judged!("cgroup2", cgroup, cgroup.v2 = failed("mkdir(cgroup)", libc::EACCES));
    assert!(!not_ours.fix.unwrap().root);
    let none = judged!("cgroup1", cgroup, cgroup.v1.clear());
    assert!(!none.works());
    let refused = judged!("cgroup1", cgroup, cgroup.v1[0].1 = failed("mkdir(cgroup)", libc::EACCES));
    assert_eq!(refused.errno.as_deref(), Some("EACCES"));
}

#[test]
fn lockdown_and_capabilities() {
    let user = Who { uid: 1000, caps: 0, lockdown: failed("open", libc::EACCES), ..Who::default() };
    let [lockdown, caps] = user.judge().try_into().unwrap();
    assert_eq!(lockdown.verdict, Verdict::Note);
    assert!(!caps.works() && caps.fix.is_some());
    let almost = Who { caps: !(1 << 24), ..Who::default() };
    assert_eq!(almost.judge()[1].what, "all but CAP_SYS_RESOURCE");
}

#[test]
fn noise_is_never_a_no() {
    let quiet = machine::Noise {
        cpus: 8,
        load: 0.1,
        steal: 0.0,
        spin_us: (20.0, 20.5),
        hardware_counters: true,
        governor: Some("performance".into()),
        hypervisor: false,
    };
    assert_eq!(quiet.judge().verdict, Verdict::Ok);
    assert_eq!(
        machine::Noise { hypervisor: true, ..quiet }.judge().evidence,
        "fine for ratios, not for absolute times"
    );
    let busy = machine::Noise { load: 9.0, ..quiet_again() };
    assert!(busy.judge().evidence.starts_with("noisy"));
}

fn quiet_again() -> machine::Noise {
    machine::Noise {
        cpus: 8,
        load: 0.0,
        steal: 0.0,
        spin_us: (20.0, 20.0),
        hardware_counters: false,
        governor: None,
        hypervisor: true,
    }
}
