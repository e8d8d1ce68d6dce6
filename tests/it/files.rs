//! Every file of the corpus through the program: what it says, how it ends, what it leaves.

use std::fs;

use crate::cli::Folder;
use crate::corpus::files;

#[test]
fn every_file_has_its_verdict() {
    let folder = Folder::empty();
    let (mut computed, mut refused) = (0, 0);
    for file in files() {
        let what = format!("{}: {}", file.name, file.what);
        let place = file.name.split_inclusive(".safetensors").next().unwrap();
        fs::write(folder.path(place), &file.bytes).unwrap();
        let before = folder.names();
        let line = format!("run {} --axis -1 --lse lse.npy --device cpu", file.name);
        let run = folder.run(&line);
        match file.verdict {
            Err(words) => {
                assert_eq!(
                    (run.code, &run.out[..]),
                    (Some(1), ""),
                    "{what}: {}",
                    run.err
                );
                let start = format!("error: {}: ", file.name);
                assert!(run.err.starts_with(&start), "{what}: {}", run.err);
                assert!(run.err.contains(words), "{what}: {}", run.err);
                assert_eq!(folder.names(), before, "{what}");
                refused += 1;
            }
            // Rows of a class at least.
            Ok(kind)
                if kind.contains("float") && !kind.ends_with("[]") && !kind.ends_with("0]") =>
            {
                assert_eq!(run.code, Some(0), "{what}: {}", run.err);
                fs::remove_file(folder.path("lse.npy")).unwrap();
                computed += 1;
            }
            // An array that is no logits.
            Ok(_) => {
                assert!(matches!(run.code, Some(1 | 2)), "{what}: {}", run.err);
                assert!(run.err.starts_with("error: "), "{what}: {}", run.err);
                assert_eq!(folder.names(), before, "{what}");
            }
        }
        fs::remove_file(folder.path(place)).unwrap();
    }
    assert!(computed >= 30 && refused >= 170, "{computed} and {refused}");
}
