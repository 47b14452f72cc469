//! Documents within a size limit: blocks of whole lines, of which the least important are left out and counted.

use vllm_verdict::number;

/// A part of a document. Its opening and closing are always written; items may be left out from the end.
#[derive(Debug, Clone, Default)]
pub struct Block {
    /// Blocks with a lower number are filled first.
    pub priority: u8,
    /// Text before the items, complete lines.
    pub open: String,
    /// Complete lines each: a table row, with the table's head where it is the first; a chart with its fences.
    pub items: Vec<String>,
    /// Text after the items, complete lines.
    pub close: String,
    /// Noun for an item, singular.
    pub noun: &'static str,
    /// What the block holds, for the sentence that replaces all of it where no item fits.
    pub title: String,
}

/// The blocks in their order, in at most `budget` bytes. `elsewhere` completes the sentence "12 more rows ...". Openings,
/// closings and these sentences are never left out; `escape` bounds their length.
pub fn fit(blocks: &[Block], budget: usize, elsewhere: &str) -> String {
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by_key(|&at| blocks[at].priority);
    let reserved = |block: &Block| {
        let note = if block.items.is_empty() { 0 } else { note(block, block.items.len(), elsewhere).len() };
        block.open.len() + block.close.len() + note
    };
    let mut room = budget.saturating_sub(blocks.iter().map(reserved).sum());
    let mut kept = vec![0; blocks.len()];
    for at in order {
        for item in &blocks[at].items {
            if item.len() > room {
                break;
            }
            room -= item.len();
            kept[at] += 1;
        }
    }
    blocks.iter().zip(kept).map(|(block, kept)| write(block, kept, elsewhere)).collect()
}

fn write(block: &Block, kept: usize, elsewhere: &str) -> String {
    let omitted = block.items.len() - kept;
    if kept == 0 && omitted > 0 && !block.title.is_empty() {
        return format!("*{}: {elsewhere}*\n\n", block.title);
    }
    let note = if omitted > 0 { note(block, omitted, elsewhere) } else { String::new() };
    format!("{}{}{note}{}", block.open, block.items[..kept].concat(), block.close)
}

fn note(block: &Block, omitted: usize, elsewhere: &str) -> String {
    format!("\n*{} more {} {elsewhere}*\n", number::count(omitted), number::plural_noun(omitted, block.noun))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(priority: u8, items: &[&str]) -> Block {
        Block {
            priority,
            open: "(\n".into(),
            items: items.iter().map(|item| format!("{item}\n")).collect(),
            close: ")\n".into(),
            noun: "row",
            title: String::new(),
        }
    }

    #[test]
    fn a_block_of_which_nothing_fits_is_a_sentence() {
        let titled = Block { title: "All 2 rows".into(), ..block(0, &["aaaaaaaaaaaaaaaaaaaa", "b"]) };
        assert_eq!(fit(&[titled], 45, "elsewhere"), "*All 2 rows: elsewhere*\n\n");
    }

    #[test]
    fn the_less_important_block_is_cut_at_a_line_and_reports_the_number_of_missing_rows() {
        let blocks = [block(1, &["aaaaaaaa", "bbbbbbbb", "cccccccc"]), block(0, &["dddddddd"])];
        let note = "\n*3 more rows elsewhere*\n".len();
        let budget = 8 + note + "\n*1 more row elsewhere*\n".len() + 18;
        let text = fit(&blocks, budget, "elsewhere");
        insta::assert_snapshot!(text, @r"
        (
        aaaaaaaa

        *2 more rows elsewhere*
        )
        (
        dddddddd
        )
        ");
        assert!(text.len() <= budget);
        assert_eq!(fit(&blocks, 1000, "elsewhere"), "(\naaaaaaaa\nbbbbbbbb\ncccccccc\n)\n(\ndddddddd\n)\n");
    }
}
