//! Whole projects, in and out.

use std::fs;

use crate::support::{Workplace, ok};

#[tokio::test]
async fn a_project_of_50_000_files_goes_in_and_out() {
    const FOLDERS: usize = 250;
    const FILES: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("project");
    for outer in 0..FOLDERS {
        let inner = project.join(format!("{}/{outer}", outer % 10));
        fs::create_dir_all(&inner).unwrap();
        for file in 0..FILES {
            // Most are empty: a disk that tells its device of each block that is freed takes long to remove the others.
            let content = match file % 10 {
                9 => format!("{outer} {file}\n"),
                _ => String::new(),
            };
            fs::write(inner.join(format!("{file}.txt")), content).unwrap();
        }
    }
    let place = Workplace::new().await;
    ok(place.files().unwrap().upload(&project, "/srv/project")).await;
    let counted = place.says("cd /srv/project && find . -type f | wc -l && mv 3 moved && cat moved/3/9.txt && rm -r moved").await;
    assert_eq!(counted, format!("{}\n3 9", FOLDERS * FILES));
    let back = folder.path().join("back");
    ok(place.files().unwrap().download("/srv/project", &back)).await;
    assert_eq!(
        fs::read_to_string(back.join("4/14/199.txt")).unwrap(),
        "14 199\n"
    );
    assert!(!back.join("3").exists());
}
