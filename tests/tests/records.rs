//! The records in `benches/record/`: each can be read, and says the same as the Markdown beside it.

use std::fs;
use std::path::Path;

use benches::record::{Lab, Record, SCHEMA};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/record")
}

#[test]
fn every_record_is_readable_and_has_its_text_beside_it() {
    let mut seen = 0;
    for file in fs::read_dir(folder()).unwrap().map(|f| f.unwrap().path()) {
        let text = fs::read_to_string(file.with_extension("md")).unwrap_or_else(|e| panic!("{file:?}: {e}"));
        if file.extension().is_some_and(|e| e == "json") {
            let record = Record::load(&file).unwrap_or_else(|e| panic!("{e}"));
            seen += 1;
            for outcome in record.labs.iter().flat_map(|l| &l.outcomes) {
                assert!(
                    text.contains(&format!("### {}\n", outcome.title)),
                    "{file:?}: no {:?}",
                    outcome.title
                );
            }
        }
    }
    assert!(seen > 0, "benches/record has no record");
}

#[test]
fn a_record_is_kept_by_date_machine_and_lab_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let lab = |name: &str| Lab { lab: name.into(), notes: vec!["a note".into()], ..Lab::default() };
    let mut record =
        Record { schema: SCHEMA, date: "2026-01-02".into(), labs: vec![lab("a")], ..Record::default() };
    record.machine.arch = "x86_64".into();
    record.machine.cpus = 2;
    let one = record.save(dir.path()).unwrap();
    assert!(one.ends_with("2026-01-02-x86_64-2cpu-a.json"), "{one:?}");
    record.labs.push(lab("b"));
    let all = record.save(dir.path()).unwrap();
    assert!(all.ends_with("2026-01-02-x86_64-2cpu.json"), "{all:?}");
    assert_eq!(Record::load(&all).unwrap().labs[1].notes, ["a note"]);
    assert!(fs::read_to_string(all.with_extension("md")).unwrap().contains("## b\n"));
    // What is there is not replaced.
    let second = record.add(dir.path()).unwrap();
    assert!(second.ends_with("2026-01-02-x86_64-2cpu-2.json"), "{second:?}");
    record.quick = true;
    let quick = record.add(dir.path()).unwrap();
    assert!(quick.ends_with("2026-01-02-x86_64-2cpu-quick.json"), "{quick:?}");
}

#[test]
fn a_record_of_another_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.json");
    fs::write(&file, r#"{"schema": 99}"#).unwrap();
    assert!(Record::load(&file).unwrap_err().to_string().contains("schema 99"));
    fs::write(&file, "[]").unwrap();
    assert!(Record::load(&file).unwrap_err().to_string().contains("not a record"));
}

#[test]
fn a_hostile_record_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.json");
    let whole =
        serde_json::to_string(&Record { schema: SCHEMA, date: "2026-01-02".into(), ..Record::default() });
    let whole = whole.unwrap();
    for (from, to, why) in [
        ("\"seconds\":0.0", "\"seconds\":1e300", "no figure is 1e+300"),
        ("2026-01-02", "2026\\u001b[2J", "control character"),
    ] {
        assert!(whole.contains(from), "{whole}");
        fs::write(&file, whole.replace(from, to)).unwrap();
        let said = Record::load(&file).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    }
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(Record::load(&file).unwrap_err().to_string().contains("not a record"));
}
