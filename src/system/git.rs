//! Questions to git about the current checkout.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indexmap::IndexMap;

use crate::environment::Environment;
use crate::system::host_variables;
use crate::system::program::{self, Output, Program};
use crate::system::work_tree;

/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(120);

/// What no repository may change: a commit can hold a folder that git would take for a bare repository, with settings that
/// run programs.
const SETTINGS: [&str; 6] =
    ["-c", "safe.bareRepository=explicit", "-c", "core.fsmonitor=false", "-c", "protocol.ext.allow=never"];

/// Questions to the `git` of this machine.
#[derive(Debug)]
pub struct Git {
    variables: IndexMap<String, String>,
}

/// A file that differs from a commit's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// From the folder that was asked about.
    pub path: String,
    pub is_deleted: bool,
}

impl Git {
    /// With what git needs of the operator's environment.
    pub fn new(environment: &Environment) -> Self {
        let mut variables = host_variables::of_git(environment);
        let fixed = [
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_LITERAL_PATHSPECS", "1"),
            ("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh"),
        ];
        variables.extend(fixed.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Self { variables }
    }

    /// Runs `git` in a folder, or else at the top of the checkout, where its `.git` comes before anything that a commit holds.
    /// What stands in place of an object (`refs/replace`) and patterns in paths have no effect.
    async fn ask(&self, folder: Option<&Path>, arguments: &[&str]) -> Result<Output> {
        let top = work_tree::top_of_current();
        let program = Program {
            name: Path::new("git"),
            arguments: &[&SETTINGS, arguments].concat(),
            variables: &host_variables::words(&self.variables),
            folder: folder.or(top.as_deref()),
            stdin: b"",
            limit: LIMIT,
        };
        program::run(&program).await.context("cannot run `git`")
    }

    /// Runs `git`; returns whether it succeeded, and what it printed.
    async fn git(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let output = self.ask(None, arguments).await?;
        Ok((output.status.success(), output.text()))
    }

    /// Runs `git`; returns what it printed, or why it did not succeed: `guess`, and git's own words where it has any.
    async fn answer(&self, arguments: &[&str], guess: &str) -> Result<String> {
        let output = self.ask(None, arguments).await?;
        let words = output.errors();
        match (output.status.success(), words.lines().find(|line| !line.trim().is_empty())) {
            (true, _) => Ok(output.text()),
            (false, Some(_)) => bail!("{guess} (git: {})", output.first_line()),
            (false, None) => bail!("{guess}"),
        }
    }

    /// The commit that is checked out, as a full hash; `None` where git does not say.
    pub async fn head(&self) -> Option<String> {
        matches(self.git(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).await)
    }

    /// The commit that is checked out in a folder, as a full hash.
    ///
    /// # Errors
    /// When git does not say.
    pub async fn head_of(&self, folder: &Path) -> Result<String> {
        let output = self.ask(Some(folder), &["rev-parse", "--verify", "HEAD^{commit}"]).await?;
        Ok(output.checked(Output::first_line).context("git does not know what is checked out")?.text())
    }

    /// The files of the checkout in a folder that differ from those of `commit`, new ones among them. What git ignores is not.
    ///
    /// # Errors
    /// When git does not know the commit there.
    pub async fn changed_since(&self, folder: &Path, commit: &str) -> Result<Vec<Changed>> {
        let unknown = || format!("git does not know {commit} there: fetch it (`fetch-depth: 0`)");
        let differ = [
            "diff",
            "--no-ext-diff",
            "--no-textconv",
            "--no-renames",
            "--relative",
            "--name-status",
            "-z",
            commit,
            "--",
        ];
        let differ = self.ask(Some(folder), &differ).await?.checked(Output::first_line).with_context(unknown)?;
        let new = ["ls-files", "--others", "--exclude-standard", "-z"];
        let new = self.ask(Some(folder), &new).await?.checked(Output::first_line)?;
        let differ = String::from_utf8(differ.stdout).context("a name of a file is not UTF-8 text")?;
        let new = String::from_utf8(new.stdout).context("a name of a file is not UTF-8 text")?;
        let words: Vec<&str> = differ.split('\0').collect();
        let of_pair = |pair: &[&str]| match pair {
            [status, path] => Some(Changed { path: (*path).to_owned(), is_deleted: *status == "D" }),
            _ => None,
        };
        let changed = words.chunks(2).filter_map(of_pair);
        let new = new.split('\0').filter(|path| !path.is_empty());
        let mut all: Vec<Changed> =
            changed.chain(new.map(|path| Changed { path: path.to_owned(), is_deleted: false })).collect();
        all.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(all)
    }

    /// The commit before `commit` on its branch, as a full hash.
    ///
    /// # Errors
    /// When git does not know it.
    pub async fn parent(&self, commit: &str) -> Result<String> {
        let guess = format!("git does not know the commit before {commit}: fetch it, or name the commit with --base");
        self.answer(&["rev-parse", "--verify", "--quiet", &format!("{commit}^1^{{commit}}")], &guess).await
    }

    /// The tip of a branch, of `origin` or of this clone, as a full hash; `None` where git does not know the branch.
    pub async fn branch(&self, name: &str) -> Option<String> {
        match self.branch_of_origin(name).await {
            Some(hash) => Some(hash),
            None => self.tip(&format!("refs/heads/{name}")).await,
        }
    }

    /// The tip of a branch of `origin`, as a full hash. A branch of the clone has the name that a pull request gave it.
    pub async fn branch_of_origin(&self, name: &str) -> Option<String> {
        self.tip(&format!("refs/remotes/origin/{name}")).await
    }

    async fn tip(&self, reference: &str) -> Option<String> {
        matches(self.git(&["rev-parse", "--verify", "--quiet", &format!("{reference}^{{commit}}")]).await)
    }

    /// At most `most` commits before `commit` on its branch, nearest first, as full hashes.
    ///
    /// # Errors
    /// When git does not know the commit.
    pub async fn before(&self, commit: &str, most: u32) -> Result<Vec<String>> {
        let count = format!("--max-count={}", most.saturating_add(1));
        let guess = format!("git does not know the commits before {commit}: fetch them, or give a GITHUB_TOKEN");
        let list = self.answer(&["rev-list", "--first-parent", &count, commit], &guess).await?;
        Ok(list.lines().skip(1).map(str::to_owned).collect())
    }

    /// Whether git knows that `commit` is `later` or a commit before it.
    pub async fn is_before(&self, commit: &str, later: &str) -> bool {
        matches!(self.git(&["merge-base", "--is-ancestor", commit, later]).await, Ok((true, _)))
    }

    /// When a commit was made, RFC 3339; `None` where git does not know it.
    pub async fn date(&self, commit: &str) -> Option<String> {
        let (found, date) =
            self.git(&["show", "--no-patch", "--format=%cI", &format!("{commit}^{{commit}}")]).await.ok()?;
        found.then_some(date).filter(|date| !date.is_empty())
    }

    /// The merge base of two commits (or a remote branch and a commit), as a full hash.
    ///
    /// # Errors
    /// When git does not know them; the error says how to get them, and whether the clone is shallow.
    pub async fn merge_base(&self, base: &str, head: &str) -> Result<String> {
        let guess = format!(
            "git does not know both {base} and {head}: fetch them, give a GITHUB_TOKEN, or name the commit with --base"
        );
        let unknown = match self.answer(&["merge-base", base, head], &guess).await {
            Ok(hash) => return Ok(hash),
            Err(unknown) => unknown,
        };
        let (_, shallow) = self.git(&["rev-parse", "--is-shallow-repository"]).await?;
        if shallow == "true" {
            bail!(
                "the clone is shallow: check out with `fetch-depth: 0`, give a GITHUB_TOKEN, or name the commit with --base"
            );
        }
        Err(unknown)
    }

    /// The file of `commit` at `path`, which is relative to the top of the repository. Links are not followed, neither for the
    /// file nor for its folders. At most `limit` bytes are read. git runs in `folder`.
    ///
    /// # Errors
    /// git cannot answer: it is missing, refuses the checkout, or does not have the commit. The error is its own message.
    pub async fn file_of(&self, folder: &Path, commit: &str, path: &Path, limit: usize) -> Result<InCommit> {
        answered(self.ask(Some(folder), &["cat-file", "-e", &format!("{commit}^{{commit}}")]).await?)?;
        let mut object = String::new();
        let mut parts: Vec<&Path> = path.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
        parts.reverse();
        for part in &parts {
            let name = part.display().to_string();
            let listed = ["ls-tree", "-z", "--full-tree", "--long", commit, "--", &name];
            let entries = answered(self.ask(Some(folder), &listed).await?)?.text();
            let entry = entries.split('\0').find_map(|entry| entry.split_once('\t').filter(|(_, at)| *at == name));
            let Some((facts, _)) = entry else { return Ok(InCommit::Absent) };
            let [mode, kind, hash, size] = facts.split_whitespace().collect::<Vec<_>>()[..] else {
                bail!("`git ls-tree` printed `{facts}`");
            };
            let expected = if *part == path { "blob" } else { "tree" };
            if mode == "120000" {
                return Ok(InCommit::Refused(format!("`{name}` is a symbolic link")));
            }
            if kind != expected {
                return Ok(InCommit::Refused(format!("`{name}` is a {kind}")));
            }
            if size.parse().is_ok_and(|bytes: usize| bytes > limit) {
                return Ok(InCommit::Refused(format!("`{name}` has {size} bytes; at most {limit} are read")));
            }
            object = hash.to_owned();
        }
        let content = answered(self.ask(Some(folder), &["cat-file", "blob", &object]).await?)?;
        Ok(match String::from_utf8(content.stdout) {
            Ok(text) => InCommit::Text(text),
            Err(_) => InCommit::Refused(format!("`{}` is not a text", path.display())),
        })
    }

    /// Whether the repository of a folder has a commit.
    ///
    /// # Errors
    /// git cannot answer.
    pub async fn has_commit(&self, folder: &Path, commit: &str) -> Result<bool> {
        answered(self.ask(Some(folder), &["rev-parse", "--git-dir"]).await?)?;
        Ok(self.ask(Some(folder), &["cat-file", "-e", &format!("{commit}^{{commit}}")]).await?.status.success())
    }

    /// Whether the index of the checkout has the path, or a file below it, which is relative to `folder`.
    ///
    /// # Errors
    /// git cannot answer.
    pub async fn is_tracked(&self, folder: &Path, path: &Path) -> Result<bool> {
        let listed = answered(self.ask(Some(folder), &["ls-files", "-z", "--", &path.display().to_string()]).await?)?;
        Ok(!listed.stdout.is_empty())
    }
}

/// A file in a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InCommit {
    /// The commit does not have it.
    Absent,
    /// Its text.
    Text(String),
    /// It is there, and it is not a file of text that is read; why.
    Refused(String),
}

fn matches(asked: Result<(bool, String)>) -> Option<String> {
    asked.ok().and_then(|(found, hash)| found.then_some(hash))
}

fn answered(output: Output) -> Result<Output> {
    output.checked(Output::first_line).context("git cannot answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

    fn asked() -> Git {
        Git::new(&[("PATH", PATH)].into_iter().collect())
    }

    async fn commit_of(folder: &Path, script: &str) -> String {
        let script = format!(
            "git init -q . && {script} && git add -A && git -c user.name=A -c user.email=a@example.org commit -qm x && git rev-parse HEAD"
        );
        let program = Program {
            name: Path::new("sh"),
            arguments: &["-ec", &script],
            variables: &[("PATH", PATH)],
            folder: Some(folder),
            stdin: b"",
            limit: LIMIT,
        };
        program::run(&program).await.unwrap().checked(Output::last_line).unwrap().text()
    }

    #[tokio::test]
    async fn a_file_of_a_commit_is_read_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let script = "mkdir -p .github real 'a[b]' && echo 'x: 1' >.github/a.yml && echo evil >real/a.yml \
            && ln -s real linked && ln -s real/a.yml a.yml && echo odd >'a[b]/*' && head -c 4000 /dev/zero >large && printf '\\377' >binary";
        let commit = commit_of(root, script).await;
        let of = async |path: &str| asked().file_of(root, &commit, Path::new(path), 1000).await.unwrap();
        assert_eq!(of(".github/a.yml").await, InCommit::Text("x: 1\n".to_owned()));
        assert_eq!(of("a[b]/*").await, InCommit::Text("odd\n".to_owned()));
        for absent in [".github/b.yml", "missing/a.yml", "a*", ":(glob)**/a.yml"] {
            assert_eq!(of(absent).await, InCommit::Absent, "{absent}");
        }
        for (path, why) in [
            ("linked/a.yml", "`linked` is a symbolic link"),
            ("a.yml", "`a.yml` is a symbolic link"),
            ("real", "`real` is a tree"),
            ("large/a.yml", "`large` is a blob"),
            ("large", "`large` has 4000 bytes; at most 1000 are read"),
            ("binary", "`binary` is not a text"),
        ] {
            assert_eq!(of(path).await, InCommit::Refused(why.to_owned()), "{path}");
        }
    }

    #[tokio::test]
    async fn a_question_that_git_cannot_answer_is_an_error_and_never_an_absent_file() {
        let folder = tempfile::tempdir().unwrap();
        let commit = commit_of(folder.path(), "echo x >a.yml").await;
        let unknown = asked().file_of(folder.path(), &"1".repeat(40), Path::new("a.yml"), 9).await.unwrap_err();
        let nowhere = asked().file_of(Path::new("/"), &commit, Path::new("a.yml"), 9).await.unwrap_err();
        for error in [unknown, nowhere] {
            assert!(format!("{error:#}").starts_with("git cannot answer: "), "{error:#}");
        }
    }

    #[tokio::test]
    async fn what_replaces_an_object_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let commit = commit_of(root, "echo 'x: 1' >a.yml").await;
        commit_of(root, "git replace $(git rev-parse HEAD:a.yml) $(echo 'x: 2' | git hash-object -w --stdin); echo >b")
            .await;
        let text = asked().file_of(root, &commit, Path::new("a.yml"), 9).await.unwrap();
        assert_eq!(text, InCommit::Text("x: 1\n".to_owned()));
    }
}
