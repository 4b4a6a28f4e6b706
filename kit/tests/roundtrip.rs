//! What is saved is what was told, whatever was told.

use kit::event::{Check, Ending, Event, Header, Item, Metric, Step};
use kit::run::{Run, write_whole};
use kit::{Bars, Hexdump, Lanes, Lines, Listing, Place, Predict, Scale, Span, Summary, Table};
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    // Also control characters, quotes, and what is not ASCII.
    proptest::collection::vec(any::<char>(), 0..12).prop_map(|c| c.into_iter().collect())
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), -1e12..1e12f64, 0.0..1e-9f64]
}

fn item() -> impl Strategy<Value = Item> {
    let numbers = || proptest::collection::vec(number(), 0..4);
    prop_oneof![
        text().prop_map(|text| Item::Say { text }),
        (text(), text(), numbers()).prop_map(|(name, unit, n)| Item::Measure {
            name,
            unit,
            summary: Summary::of(&n)
        }),
        (text(), text()).prop_map(|(a, b)| Item::Table(Table::new([&a]).right([0]).row([&b]).mark([&a]))),
        (text(), number(), number())
            .prop_map(|(t, a, b)| Item::Bars(Bars::new(&t, &t).bar(&t, a, &t).from(a, &t, b).with_share())),
        (text(), number(), number()).prop_map(|(t, a, b)| Item::Lines(
            Lines::new(&t, &t, &t).scales(Scale::Log, Scale::Nines).series(&t, vec![(a, b), (b, a)])
        )),
        (text(), number(), number())
            .prop_map(|(t, a, b)| Item::Lanes(Lanes::new(&t, &t).lane(&t, vec![Span::new(a, b, &t, &t)]))),
        (text(), any::<u64>(), proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(t, base, bytes)| Item::Hexdump(Hexdump::new(&t, base, &bytes).note(3, 9, &t))),
        text().prop_map(|t| Item::Listing(Listing::new(&t).line(&t, &t))),
        text().prop_map(|t| Item::Figure { title: t.clone(), text: t, svg: String::new() }),
        text().prop_map(|t| Item::Missing { what: t.clone(), why: t.clone(), fix: t }),
    ]
}

fn told(items: Vec<Item>, text: &str, value: f64) -> Vec<Event> {
    let at = Place { file: "labs/x/src/main.rs".into(), line: 7 };
    let mut events = vec![
        Event::Begin(Box::new(Header { lab: text.into(), question: text.into(), ..Header::default() })),
        Event::Step(Step { n: 1, title: text.into(), at: at.clone(), predict: None, items: vec![] }),
        Event::Predict(Predict::new(text, [text, "b"], 1, text)),
    ];
    events.extend(items.into_iter().map(Event::Item));
    events.push(Event::Metric(text.into(), Metric { value, unit: text.into(), spread: None }));
    events.push(Event::Check(Check { name: text.into(), ok: true, detail: text.into(), at }));
    events.push(Event::End(Ending { so: text.into(), ok: true, ..Ending::default() }));
    events
}

fn collected<'a>(events: impl IntoIterator<Item = &'a Event>) -> Run {
    let mut run = Run::default();
    events.into_iter().for_each(|e| run.apply(e));
    run
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_run_survives_saving_and_replaying(
        items in proptest::collection::vec(item(), 0..6), text in text(), value in number()
    ) {
        let events = told(items, &text, value);
        let run = collected(&events);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        write_whole(&path, &run.to_json()).unwrap();
        let read = Run::load(&path).unwrap();
        prop_assert_eq!(&read, &run);
        let again: Vec<Event> = read.events().collect();
        prop_assert_eq!(collected(&again), run);
    }
}

#[test]
fn the_new_file_replaces_the_old_one_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.json");
    write_whole(&path, "a long old text").unwrap();
    write_whole(&path, "new").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
}
