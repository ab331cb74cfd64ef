//! Replays the committed corpus of every fuzz target.

use std::path::Path;

#[test]
fn every_committed_input_is_survived() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut inputs = 0;
    for (name, run) in testbed::fuzz::TARGETS {
        let folder = corpus.join(name);
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|n| n == ".gitkeep") {
                continue;
            }
            println!("{}", path.display());
            run(&std::fs::read(&path).unwrap());
            inputs += 1;
        }
    }
    println!("{inputs} inputs replayed");
}
