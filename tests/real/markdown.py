"""Renders Markdown documents as GitHub does, and checks that they hold nothing but the report's own mark-up."""

import html.parser
import pathlib
import re
import sys

import cmarkgfm
from cmarkgfm.cmark import Options

TAGS = set("h3 h4 p a code pre table thead tbody tr th td details summary ul li blockquote em strong br hr ol".split())
OWN = "https://github.com/octo-org/octo-repo/"
REFERENCE = re.compile(r"@[a-z0-9]|#\d|\bgh-\d|\b[0-9a-f]{7,40}\b", re.IGNORECASE)


class Page(html.parser.HTMLParser):
    def __init__(self, name):
        super().__init__()
        self.name, self.inside, self.text = name, [], ""

    def fail(self, what):
        sys.exit(f"{self.name}: {what}")

    def handle_starttag(self, tag, attributes):
        self.flush()
        if tag not in TAGS:
            self.fail(f"the tag {tag}")
        for key, value in attributes:
            if (tag, key) == ("a", "href") and value.startswith(OWN):
                continue
            if key not in ("align", "lang"):
                self.fail(f"{tag} has {key}={value}")
        if tag not in ("br", "hr"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        self.flush()
        if not self.inside or self.inside.pop() != tag:
            self.fail(f"{tag} is closed where it is not open")

    def handle_data(self, data):
        if not {"code", "pre", "a"} & set(self.inside):
            self.text += data

    def handle_comment(self, data):
        if data.strip() != "vllm-perf:v1 id=id":
            self.fail(f"the comment {data}")

    def flush(self):
        found = REFERENCE.search(self.text)
        if found:
            self.fail(f"the reference {found[0]} in {self.text}")
        self.text = ""


files = sorted(pathlib.Path(sys.argv[1]).glob("*.md"))
for file in files:
    page = Page(file.name)
    page.feed(cmarkgfm.github_flavored_markdown_to_html(file.read_text(), Options.CMARK_OPT_UNSAFE))
    page.close()
    page.flush()
    if page.inside:
        page.fail(f"{page.inside} is not closed")
assert len(files) > 900, len(files)
print(f"ok: {len(files)} documents with hostile text hold only the report's own links and tags")
