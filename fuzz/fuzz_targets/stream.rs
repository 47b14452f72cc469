//! Fuzzes the parsers of the load client: HTTP, events, chunks. Nothing panics, and the result depends neither on where the
//! reads end nor on earlier chunks. The first byte of the input selects a head that is put before the rest, and the size of
//! the reads.

#![no_main]

#[allow(dead_code)]
#[path = "../../crates/load/src/response.rs"]
mod response;
#[allow(dead_code)]
#[path = "../../crates/load/src/stream.rs"]
mod stream;

use libfuzzer_sys::fuzz_target;
use response::{Piece, ResponseParser};
use stream::{Chunk, ChunkParser, StreamItem, StreamParser};

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const UNSIZED: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// What was parsed: statuses, tokens, `[DONE]`s, token counts, the end, or an error.
#[derive(Debug, Default, PartialEq)]
struct Parsed {
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

fn read<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> Parsed {
    let mut parsed = Parsed::default();
    let (mut response, mut stream) = (ResponseParser::default(), StreamParser::default());
    let mut chunks = ChunkParser::default();
    for bytes in reads {
        if step(bytes, &mut response, &mut stream, &mut chunks, &mut parsed).is_err() {
            parsed.broken = true;
        }
        if parsed.broken || parsed.ended {
            break;
        }
    }
    parsed
}

fn step(
    mut input: &[u8],
    response: &mut ResponseParser,
    stream: &mut StreamParser,
    chunks: &mut ChunkParser,
    parsed: &mut Parsed,
) -> Result<(), String> {
    loop {
        match response.next(&mut input)? {
            Piece::Head(status) => parsed.status = Some(status),
            Piece::Body(bytes) => {
                stream.push(bytes)?;
                while let Some(item) = stream.next_item() {
                    let StreamItem::Data(data) = item else {
                        parsed.done += 1;
                        continue;
                    };
                    let content = |chunk: &Chunk<'_>| (chunk.has_token(), chunk.text().into_owned(), chunk.usage);
                    let alone = Chunk::parse(data).as_ref().map(content).ok();
                    let chunk = chunks.read(data);
                    assert_eq!(alone, chunk.as_ref().map(content).ok());
                    let chunk = chunk?;
                    if chunk.has_token() {
                        parsed.texts.push(chunk.text().into_owned());
                    }
                    if let Some(usage) = chunk.usage {
                        parsed.usage.push(usage.completion_tokens);
                    }
                }
            }
            Piece::NeedMore => return Ok(()),
            Piece::End => {
                parsed.ended = true;
                return Ok(());
            }
        }
    }
}
