//! A reader of pprof profiles of its own: protobuf by hand, as far as profiles need it.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A profile, with names in place of numbers.
#[derive(Debug, Default)]
pub struct Profile {
    pub sample_types: Vec<(String, String)>,
    pub default_sample_type: String,
    pub samples: Vec<Sample>,
    /// File and build id of each module.
    pub modules: Vec<(String, String)>,
    pub period: u64,
    pub duration_ns: u64,
}

/// One stack.
#[derive(Debug, Default)]
pub struct Sample {
    /// Functions, the newest first; `0x...` where a place has none.
    pub functions: Vec<String>,
    pub addresses: Vec<u64>,
    pub values: Vec<i64>,
    pub labels: Vec<(String, String)>,
}

enum Field<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a varint that does not end");
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            2 => {
                let len = varint(&mut bytes) as usize;
                let (value, rest) = bytes.split_at(len);
                bytes = rest;
                Field::Bytes(value)
            }
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, value));
    }
    found
}

fn messages(bytes: &[u8], wanted: u64) -> Vec<&[u8]> {
    let only = |(number, field)| match field {
        Field::Bytes(value) if number == wanted => Some(value),
        _ => None,
    };
    fields(bytes).into_iter().filter_map(only).collect()
}

fn number(bytes: &[u8], wanted: u64) -> u64 {
    let only = |(number, field)| match field {
        Field::Number(value) if number == wanted => Some(value),
        _ => None,
    };
    fields(bytes).into_iter().find_map(only).unwrap_or(0)
}

/// Numbers of a repeated field, packed or not.
fn numbers(bytes: &[u8], wanted: u64) -> Vec<u64> {
    let mut found = Vec::new();
    for (number, field) in fields(bytes) {
        match field {
            Field::Number(value) if number == wanted => found.push(value),
            Field::Bytes(mut packed) if number == wanted => {
                while !packed.is_empty() {
                    found.push(varint(&mut packed));
                }
            }
            _ => {}
        }
    }
    found
}

/// Reads a file; gzip unpacks it.
pub fn read(path: &Path) -> Profile {
    let mut gzip =
        Command::new("gzip").arg("-dc").arg(path).stdout(Stdio::piped()).spawn().expect("gzip runs");
    let mut bytes = Vec::new();
    gzip.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
    assert!(gzip.wait().unwrap().success(), "the file is whole");
    let strings: Vec<String> =
        messages(&bytes, 6).into_iter().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect();
    assert_eq!(strings[0], "");
    let text = |index: u64| strings[index as usize].clone();
    let functions: BTreeMap<u64, String> =
        messages(&bytes, 5).into_iter().map(|one| (number(one, 1), text(number(one, 2)))).collect();
    let locations: BTreeMap<u64, (u64, Vec<String>)> = messages(&bytes, 4)
        .into_iter()
        .map(|one| {
            let lines = messages(one, 4).into_iter().map(|line| functions[&number(line, 1)].clone());
            (number(one, 1), (number(one, 3), lines.collect()))
        })
        .collect();
    let sample = |one: &[u8]| {
        let places: Vec<&(u64, Vec<String>)> = numbers(one, 1).iter().map(|id| &locations[id]).collect();
        let label = |label: &[u8]| {
            let value = match number(label, 2) {
                0 => number(label, 3).to_string(),
                index => text(index),
            };
            (text(number(label, 1)), value)
        };
        let names = places.iter().flat_map(|(address, functions)| {
            if functions.is_empty() { vec![format!("{address:#x}")] } else { functions.clone() }
        });
        Sample {
            functions: names.collect(),
            addresses: places.iter().map(|(address, _)| *address).collect(),
            values: numbers(one, 2).into_iter().map(|value| value as i64).collect(),
            labels: messages(one, 3).into_iter().map(label).collect(),
        }
    };
    Profile {
        sample_types: messages(&bytes, 1)
            .into_iter()
            .map(|one| (text(number(one, 1)), text(number(one, 2))))
            .collect(),
        default_sample_type: text(number(&bytes, 14)),
        samples: messages(&bytes, 2).into_iter().map(sample).collect(),
        modules: messages(&bytes, 3)
            .into_iter()
            .map(|one| (text(number(one, 5)), text(number(one, 6))))
            .collect(),
        period: number(&bytes, 12),
        duration_ns: number(&bytes, 10),
    }
}
