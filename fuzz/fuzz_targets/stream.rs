//! The bytes of an answer, as the load client reads them: HTTP, events, chunks. Nothing panics, and what is found does not
//! depend on where the reads end, nor on what came before it. The first byte says how much of an answer stands before the rest, and where that is cut.

#![no_main]

#[allow(dead_code)]
#[path = "../../crates/load/src/response.rs"]
mod response;
#[allow(dead_code)]
#[path = "../../crates/load/src/stream.rs"]
mod stream;

use response::{Piece, Response};
use libfuzzer_sys::fuzz_target;
use stream::{Chunk, Chunks, Event, Events};

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const UNSIZED: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// What was found: statuses, tokens, `[DONE]`s, token counts, the end, or an error.
#[derive(Debug, Default, PartialEq)]
struct Found {
    status: Option<u16>,
    texts: Vec<String>,
    done: usize,
    usage: Vec<Option<u64>>,
    ended: bool,
    broken: bool,
}

fuzz_target!(|data: &[u8]| {
    let Some((control, data)) = data.split_first() else { return };
    let head = [&[][..], CHUNKED, UNSIZED][usize::from(control % 3)];
    let whole = [head, data].concat();
    let cut = usize::from(control / 3) + 1;
    let at_once = read([whole.as_slice()]);
    assert_eq!(at_once, read(whole.chunks(cut)));
});

fn read<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> Found {
    let mut found = Found::default();
    let (mut answer, mut events, mut chunks) = (Response::default(), Events::default(), Chunks::default());
    for bytes in reads {
        if step(bytes, &mut answer, &mut events, &mut chunks, &mut found).is_err() {
            found.broken = true;
        }
        if found.broken || found.ended {
            break;
        }
    }
    found
}

fn step(
    mut input: &[u8],
    answer: &mut Response,
    events: &mut Events,
    chunks: &mut Chunks,
    found: &mut Found,
) -> Result<(), String> {
    loop {
        match answer.next(&mut input)? {
            Piece::Head(status) => found.status = Some(status),
            Piece::Body(bytes) => {
                events.push(bytes)?;
                while let Some(event) = events.next_event() {
                    let Event::Data(data) = event else {
                        found.done += 1;
                        continue;
                    };
                    let alone = Chunk::parse(data).map(|chunk| (chunk.has_token(), chunk.text().into_owned(), chunk.usage));
                    let chunk = chunks.read(data);
                    let beside = chunk.as_ref().map(|chunk| (chunk.has_token(), chunk.text().into_owned(), chunk.usage));
                    assert_eq!(alone.as_ref().ok(), beside.ok().as_ref());
                    let chunk = chunk?;
                    if chunk.has_token() {
                        found.texts.push(chunk.text().into_owned());
                    }
                    if let Some(usage) = chunk.usage {
                        found.usage.push(usage.completion_tokens);
                    }
                }
            }
            Piece::More => return Ok(()),
            Piece::End => {
                found.ended = true;
                return Ok(());
            }
        }
    }
}
