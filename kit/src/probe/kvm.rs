//! KVM: makes a virtual machine of one page and lets it run.

use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::time::Instant;

use super::machine::Who;
use super::{Answer, Finding, Fix};
use crate::error::{Obstacle, SysError};
use crate::sys::kvm as ioctl;

pub(super) const NAMES: [&str; 3] = ["kvm", "kvm.speed", "kvm.dirty_ring"];

#[derive(Debug)]
pub(super) struct Kvm {
    /// Group and mode of /dev/kvm, where it exists.
    pub(super) device: Option<Device>,
    pub(super) halt: Answer<Halt>,
    pub(super) speed: Answer<Emulation>,
    pub(super) dirty_ring: Answer<()>,
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) owner: u32,
    pub(super) group: String,
    pub(super) mode: u32,
}

/// A guest that ran one `hlt`.
#[derive(Debug)]
pub(super) struct Halt {
    pub(super) api: i32,
    pub(super) exit_reason: u32,
    /// From open to exit, in milliseconds.
    pub(super) ms: f64,
}

/// A guest that ran a loop in ring 0.
#[derive(Debug)]
pub(super) struct Emulation {
    pub(super) instructions: u64,
    /// How many of them KVM interpreted (`insn_emulation`).
    pub(super) emulated: u64,
    pub(super) us: f64,
}

const EXIT_HLT: u32 = 5;
/// `hlt`
const HALT: &[u8] = &[0xf4];
/// `mov cx, 500; again: dec cx; jnz again; hlt`, in real mode.
const LOOP: &[u8] = &[0xb9, 0xf4, 0x01, 0x49, 0x75, 0xfd, 0xf4];
const LOOP_INSTRUCTIONS: u64 = 1 + 2 * 500 + 1;

impl Kvm {
    pub(super) fn collect() -> Self {
        let device = std::fs::metadata("/dev/kvm").ok().map(|m| Device {
            owner: m.uid(),
            group: super::machine::group_name(m.gid()),
            mode: m.mode() & 0o7777,
        });
        Self { device, halt: halt(), speed: emulation(), dirty_ring: dirty_ring() }
    }
}

fn open() -> Answer<ioctl::Kvm> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err(SysError::new("run x86 guest code", 0).with_detail("this CPU is not x86-64"));
    }
    ioctl::Kvm::open()
}

fn halt() -> Answer<Halt> {
    let start = Instant::now();
    let kvm = open()?;
    let api = kvm.api_version()?;
    let exit_reason = kvm.machine(HALT)?.run()?;
    Ok(Halt { api, exit_reason, ms: start.elapsed().as_secs_f64() * 1e3 })
}

fn emulation() -> Answer<Emulation> {
    let machine = open()?.machine(LOOP)?;
    let stats = machine.stats()?;
    let before = statistic(&stats, "insn_emulation")?;
    let start = Instant::now();
    let reason = machine.run()?;
    let us = start.elapsed().as_secs_f64() * 1e6;
    if reason != EXIT_HLT {
        return Err(SysError::new("KVM_RUN", 0).with_detail(format!("exit reason {reason}, not HLT")));
    }
    let emulated = statistic(&stats, "insn_emulation")? - before;
    Ok(Emulation { instructions: LOOP_INSTRUCTIONS, emulated, us })
}

/// One counter of a statistics descriptor: a header, descriptors of fixed size with names, the data.
fn statistic(stats: &std::fs::File, wanted: &str) -> Answer<u64> {
    let read = |offset: usize, buffer: &mut [u8]| {
        stats.read_exact_at(buffer, offset as u64).map_err(SysError::io("pread(KVM stats)"))
    };
    // flags, name_size, num_desc, id_offset, desc_offset, data_offset
    let mut header = [0; 24];
    read(0, &mut header)?;
    let word = |i: usize| u32::from_ne_bytes(header[4 * i..][..4].try_into().expect("four bytes")) as usize;
    let (name_size, count, descriptors, data) = (word(1), word(2), word(4), word(5));
    // flags (u32), exponent (i16), size (u16), offset (u32), bucket size (u32), name
    let mut descriptor = vec![0; 16 + name_size];
    for i in 0..count {
        read(descriptors + i * descriptor.len(), &mut descriptor)?;
        let name = descriptor[16..].split(|b| *b == 0).next().unwrap_or_default();
        if name == wanted.as_bytes() {
            let offset = u32::from_ne_bytes(descriptor[8..12].try_into().expect("four bytes")) as usize;
            let mut value = [0; 8];
            read(data + offset, &mut value)?;
            return Ok(u64::from_ne_bytes(value));
        }
    }
    Err(SysError::new("KVM_GET_STATS_FD", libc::ENOENT).with_detail(format!("no counter {wanted}")))
}

fn dirty_ring() -> Answer<()> {
    open()?.try_dirty_ring(4096)
}

impl Kvm {
    pub(super) fn judge(&self, who: &Who) -> Vec<Finding> {
        let kvm = match &self.halt {
            Ok(h) if h.exit_reason == EXIT_HLT => {
                Finding::ok(NAMES[0], "created a VM, ran hlt", format!("API {}, {:.1} ms", h.api, h.ms))
            }
            Ok(h) => Finding::no(
                NAMES[0],
                &SysError::new("KVM_RUN", 0).with_detail("hlt did not halt"),
                format!("exit reason {}, not {EXIT_HLT} (HLT)", h.exit_reason),
            ),
            Err(e) => self.cannot(e, who),
        };
        let works = kvm.works();
        let without = |name, e: &SysError, since: &str| {
            if works { Finding::old(name, e, since) } else { Finding::no(name, e, "there is no KVM to ask") }
        };
        let speed = match &self.speed {
            Ok(s) if s.emulated * 2 > s.instructions => Finding::note(
                NAMES[1],
                "ring-0 code runs in KVM's emulator",
                format!("insn_emulation {} in {:.1} ms", s.emulated, s.us / 1e3),
            ),
            Ok(s) => Finding::ok(
                NAMES[1],
                "ring-0 code runs on the CPU itself",
                format!("insn_emulation {} of {}", s.emulated, s.instructions),
            ),
            Err(e) => without(NAMES[1], e, "5.14"),
        };
        let ring = match &self.dirty_ring {
            Ok(()) => Finding::ok(NAMES[2], "KVM_ENABLE_CAP accepts a dirty ring", "4096 entries"),
            Err(e) => without(NAMES[2], e, "5.11"),
        };
        vec![kvm, speed, ring]
    }

    fn cannot(&self, e: &SysError, who: &Who) -> Finding {
        let name = NAMES[0];
        match (e.kind(), &self.device) {
            (Obstacle::Forbidden, Some(d)) => {
                let owner = if d.owner == 0 { "root".into() } else { format!("uid {}", d.owner) };
                let group = format!("{owner}:{}, mode {:04o}", d.group, d.mode);
                let fix = Fix::root(format!("sudo usermod -aG {} $USER, then log in again", d.group), "lets you run VMs");
                let cause = if who.uid == 0 {
                    format!("you are root, and /dev/kvm is {group}: a container's device rules?")
                } else {
                    format!("you are uid {}; /dev/kvm belongs to {group}", who.uid)
                };
                Finding::no(name, e, cause).with_fix(fix.for_good())
            }
            (Obstacle::Absent, _) => Finding::no(name, e, "no KVM module, no virtualisation in the firmware, or a container without it")
                .with_fix(Fix::root(
                    "sudo modprobe kvm_intel (or kvm_amd); in a VM, turn on nested virtualisation; in a container, --device /dev/kvm",
                    "",
                )),
            (_, _) if e.errno == libc::EBUSY => {
                Finding::no(name, e, "another hypervisor holds the CPU's virtualisation (VirtualBox, VMware?)")
            }
            _ => Finding::no(name, e, e.detail.clone()),
        }
    }
}
