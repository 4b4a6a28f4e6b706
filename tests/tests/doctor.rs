//! `doctor` and `list`, as people and as programs read them.

use std::io::Read as _;
use std::process::Stdio;

use kit::probe::NAMES;
use kit::testing::watchdog;
use serde_json::Value;
use tests::{obstacle, ran, root, xtask};

fn json(arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, stdout, stderr) = ran(xtask(&root(), arguments));
    (code, serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}")))
}

#[test]
fn doctor_as_json_has_every_finding_with_its_evidence() {
    let _dog = watchdog(300);
    if let Some(why) = obstacle() {
        kit::skip!("cargo", "{why}");
    }
    let (code, document) = json(&["doctor", "--json"]);
    assert_eq!(document["schema"], 1);
    assert_eq!(code, if document["ok"] == true { Some(0) } else { Some(4) });
    assert!(document["machine"]["kernel"].is_string());
    let findings = document["findings"].as_array().unwrap();
    let names: Vec<_> = findings.iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(names[..names.len() - 1], NAMES);
    assert_eq!(names.last(), Some(&"noise"));
    for finding in findings {
        assert!(["ok", "note", "no"].contains(&finding["verdict"].as_str().unwrap()), "{finding}");
        assert_ne!(finding["what"], "", "{finding}");
        assert!(finding["labs"].is_array(), "{finding}");
        if finding["verdict"] == "no" {
            assert!(finding["call"].is_string(), "{finding}");
        }
        if let Some(fix) = finding.get("fix") {
            assert!(fix["root"].is_boolean() && fix["survives_reboot"].is_boolean(), "{fix}");
            assert!(fix["command"].is_string() && fix["security_cost"].is_string(), "{fix}");
        }
    }
    for lab in document["labs"].as_array().unwrap() {
        assert!(["full", "reduced", "unavailable"].contains(&lab["verdict"].as_str().unwrap()), "{lab}");
    }
}

#[test]
fn list_and_doctor_agree_and_fit_the_terminal() {
    let _dog = watchdog(300);
    if let Some(why) = obstacle() {
        kit::skip!("cargo", "{why}");
    }
    let verdicts = |document: &Value| -> Vec<_> {
        let labs = document["labs"].as_array().unwrap();
        labs.iter().map(|lab| (lab["name"].clone(), lab["verdict"].clone())).collect()
    };
    assert_eq!(verdicts(&json(&["list", "--json"]).1), verdicts(&json(&["doctor", "--json"]).1));
    for arguments in [&["list"][..], &["doctor"]] {
        let (_, stdout, _) = ran(xtask(&root(), arguments));
        for line in stdout.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(!stdout.contains('\x1b'), "colour without a terminal");
    }
}

#[test]
fn a_closed_pipe_is_success() {
    let _dog = watchdog(300);
    if let Some(why) = obstacle() {
        kit::skip!("cargo", "{why}");
    }
    let mut child = xtask(&root(), &["list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut complaint = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    assert_eq!((child.wait().unwrap().code(), complaint.as_str()), (Some(0), ""));
}
