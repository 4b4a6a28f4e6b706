//! Parts that need no machine: tables, descriptors, parsers and device models against naive oracles.
#![cfg(target_arch = "x86_64")]

use std::collections::{BTreeSet, HashMap};

use kvm_hello::devices::serial::Serial;
use kvm_hello::devices::{Device as _, multiplier, multiplier::Multiplier};
use kvm_hello::dirty::pages_of;
use kvm_hello::exits::{Why, not_emulated};
use kvm_hello::hello::program_lines;
use kvm_hello::layout;
use kvm_hello::listing::{disassemble, instruction_of};
use kvm_hello::mode::Mode;
use kvm_hello::paging::{Format, PRESENT, Tables, WRITE, nested_loads};
use kvm_hello::segments::{Width, code, data, descriptor};
use kvm_hello::stats::{Counter, parse_descriptors};
use kvm_hello::sys::mem::Mapping;
use proptest::prelude::*;

fn memory() -> Mapping {
    Mapping::anonymous(layout::SMALL).expect("2 MiB")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_walk_finds_what_was_mapped_and_nothing_else(
        pages in prop::collection::vec((0u64..1 << 36, 0u64..1 << 20), 1..20),
        probes in prop::collection::vec(0u64..1 << 48, 20),
    ) {
        for (format, bits) in [(Format::FourLevels, 48), (Format::TwoLevels, 32)] {
            let memory = memory();
            let mut tables = Tables::new(&memory, format);
            let mut oracle = HashMap::new();
            for (virt, physical) in &pages {
                let virt = virt << 12 & ((1 << bits) - 1);
                tables.map(virt, physical << 12, PRESENT | WRITE);
                oracle.insert(virt >> 12, physical << 12);
            }
            let known = oracle.keys().map(|page| page << 12 | 0x123).collect::<Vec<_>>();
            for virt in known.into_iter().chain(probes.iter().map(|p| p & ((1 << bits) - 1))) {
                let expected = oracle.get(&(virt >> 12)).map(|page| page | (virt & 0xfff));
                prop_assert_eq!(tables.walk(virt).physical, expected, "{:#x}", virt);
            }
        }
    }

    #[test]
    fn a_bitmap_names_its_pages(words in prop::collection::vec(any::<u64>(), 0..20)) {
        let naive: BTreeSet<u64> =
            (0..64 * words.len() as u64).filter(|i| words[*i as usize / 64] >> (i % 64) & 1 == 1).collect();
        prop_assert_eq!(pages_of(&words), naive);
    }

    #[test]
    fn counters_survive_their_encoding(
        counters in prop::collection::vec(("[a-z_]{1,20}", any::<u32>(), 1u16..99), 0..10),
    ) {
        let mut block = Vec::new();
        let mut expected = Vec::new();
        for (name, offset, size) in counters {
            block.extend(0u32.to_ne_bytes());
            block.extend(0i16.to_ne_bytes());
            block.extend(size.to_ne_bytes());
            block.extend(offset.to_ne_bytes());
            block.extend(0u32.to_ne_bytes());
            let mut padded = name.clone().into_bytes();
            padded.resize(48, 0);
            block.extend(padded);
            expected.push(Counter { name, offset, size });
        }
        prop_assert_eq!(parse_descriptors(&block, 48), expected);
    }

    #[test]
    fn the_serial_port_behaves_as_its_data_sheet(steps in prop::collection::vec((0u8..5, any::<u8>()), 0..60)) {
        let mut port = Serial::default();
        // The model: what the sheet says, written down a second time and less cleverly.
        let (mut sent, mut waiting, mut enabled, mut emptied) = (Vec::new(), Vec::new(), 0u8, false);
        for (action, byte) in steps {
            let mut data = [0];
            match action {
                0 => { port.write(0, &[byte]); sent.push(byte); emptied = true; }
                1 => { port.type_in(&[byte]); waiting.push(byte); }
                2 => {
                    port.write(1, &[byte & 3]);
                    if byte & 2 != 0 && enabled & 2 == 0 { emptied = true; }
                    enabled = byte & 3;
                }
                3 => {
                    port.read(0, &mut data);
                    prop_assert_eq!(data[0], if waiting.is_empty() { 0 } else { waiting.remove(0) });
                }
                _ => {
                    port.read(2, &mut data);
                    let received = enabled & 1 != 0 && !waiting.is_empty();
                    let empty = enabled & 2 != 0 && emptied;
                    prop_assert_eq!(data[0], if received { 4 } else if empty { 2 } else { 1 });
                    if !received && empty { emptied = false; }
                }
            }
            let received = enabled & 1 != 0 && !waiting.is_empty();
            prop_assert_eq!(port.wants_interrupt(), received || (enabled & 2 != 0 && emptied));
            port.read(5, &mut data);
            prop_assert_eq!(data[0], 0x60 | u8::from(!waiting.is_empty()));
        }
        prop_assert_eq!(port.sent(), &sent[..]);
    }

    #[test]
    fn the_multiplier_multiplies(a: u32, b: u32) {
        let mut device = Multiplier::default();
        device.write(4, &a.to_le_bytes());
        device.write(8, &b.to_le_bytes());
        device.write(12, &[1, 2, 3, 4]);
        device.write(4, &[1]);
        let mut product = [0; 4];
        device.read(12, &mut product);
        prop_assert_eq!(u32::from_le_bytes(product), a.wrapping_mul(b));
    }
}

#[test]
fn devices_answer_only_at_their_addresses() {
    assert_eq!(multiplier::offset(layout::MMIO), Some(0));
    assert_eq!(multiplier::offset(layout::MMIO + 15), Some(15));
    assert_eq!(multiplier::offset(layout::MMIO + 16), None);
    assert_eq!(multiplier::offset(0), None);
}

#[test]
fn descriptors_are_those_that_linux_uses() {
    // arch/x86/kernel/cpu/common.c, gdt_page: the kernel's flat segments.
    assert_eq!(descriptor(&code(Width::Bits32, 0)), 0x00cf_9b00_0000_ffff);
    assert_eq!(descriptor(&code(Width::Bits64, 0)), 0x00af_9b00_0000_ffff);
    assert_eq!(descriptor(&data(0)), 0x00cf_9300_0000_ffff);
    assert_eq!(descriptor(&code(Width::Bits64, 3)), 0x00af_fb00_0000_ffff);
    assert_eq!(descriptor(&data(3)), 0x00cf_f300_0000_ffff);
}

#[test]
fn nested_walks_cost_what_the_manual_says() {
    assert_eq!(nested_loads(4, 4), 24);
    assert_eq!(nested_loads(5, 5), 35);
    assert_eq!(nested_loads(4, 0), 4);
}

#[test]
fn listings_are_complete() {
    for mode in Mode::ALL {
        let program = mode.program();
        let lines = program_lines(mode);
        let listed: usize = lines.iter().map(|l| l.bytes.len()).sum();
        let zeroes = program.bytes[..program.code].iter().filter(|b| **b == 0).count();
        assert!(
            listed <= program.code && listed + zeroes >= program.code,
            "{mode:?}: only padding is left out"
        );
        assert_eq!(lines[0].at, layout::CODE);
        assert_eq!(lines.last().map(|l| l.text.as_str()), Some("hlt"));
        let text = String::from_utf8_lossy(program.bytes);
        assert!(text.contains(mode.hello()), "{mode:?}");
    }
}

#[test]
fn an_exit_is_blamed_on_the_right_instruction() {
    // mov al,'H'; out dx,al; hlt
    let lines = disassemble(&[0xb0, 0x48, 0xee, 0xf4], 64, 0x1000);
    let out = Why::PortOut { port: 0x3f8, value: 0x48, width: 1, count: 1 };
    let text = |rip, why: &Why| instruction_of(&lines, rip, why).map(|l| l.text.clone());
    // RIP behind the instruction (emulated), and at it (trapped): the same `out`.
    assert_eq!(text(0x1003, &out).as_deref(), Some("out dx,al"));
    assert_eq!(text(0x1002, &out).as_deref(), Some("out dx,al"));
    assert_eq!(text(0x1004, &Why::Halt).as_deref(), Some("hlt"));
    assert_eq!(text(0x1000, &Why::Shutdown).as_deref(), Some("mov al,0x48"));
    assert_eq!(text(0x9999, &Why::Halt), None);
}

#[test]
fn bytes_that_were_not_emulated() {
    // Flags 1, size 15, then popcnt rax,rbx; hlt; zeroes: as a kernel sent it.
    assert_eq!(
        not_emulated(&[1, 0xf4_c3b8_0f48_f30f, 0, 0x1000]).map(|b| b[..5].to_vec()),
        Some(vec![0xf3, 0x48, 0x0f, 0xb8, 0xc3])
    );
    assert_eq!(not_emulated(&[0, 0x1000, 0]), None);
    assert_eq!(not_emulated(&[1]), None);
}

#[test]
#[should_panic(expected = "0x200000")]
fn memory_is_not_written_past_its_end() {
    memory().write(layout::SMALL - 1, &[1, 2]);
}
