//! Odd and hostile files, and what becomes of each: its type and shape, or words of the refusal.
//!
//! A line is a file: what it is, its bytes, its verdict. Data is bytes that count up from 1, where a line
//! says only how many. The reader's own test (src/cli/fuzz.rs) takes every verdict; `files` gives
//! every file to the program.

/// `Ok` is a type and a shape.
pub type Verdict = Result<&'static str, &'static str>;

pub struct File {
    pub what: &'static str,
    /// `x.npy`, `x.safetensors` or `x.safetensors:tensor`.
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub verdict: Verdict,
}

/// All of them.
pub fn files() -> Vec<File> {
    let npy = npy_files().into_iter().map(|(what, bytes, verdict)| File {
        what,
        name: "x.npy",
        bytes,
        verdict,
    });
    let safetensors = safetensors_files().into_iter();
    let safetensors = safetensors.map(|(what, name, bytes, verdict)| File {
        what,
        name,
        bytes,
        verdict,
    });
    npy.chain(safetensors).collect()
}

/// So many bytes of data.
fn data(count: usize) -> Vec<u8> {
    (1..=count).map(|at| at as u8).collect()
}

// ---- .npy --------------------------------------------------------------------------------------

/// A file of version 1.0 with this header, and so much data.
fn npy(header: &str, count: usize) -> Vec<u8> {
    preamble([1, 0], header.len() as u64, header, count)
}

/// Any version, and any length that the header is said to have.
fn preamble(version: [u8; 2], length: u64, header: &str, count: usize) -> Vec<u8> {
    let length = length.to_le_bytes();
    let length = if version[0] == 1 {
        &length[..2]
    } else {
        &length[..4]
    };
    [
        b"\x93NUMPY",
        &version[..],
        length,
        header.as_bytes(),
        &data(count),
    ]
    .concat()
}

/// A file with this `descr` and `shape`, as they are written in Python.
fn of(descr: &str, shape: &str, count: usize) -> Vec<u8> {
    let dict = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n");
    npy(&dict, count)
}

fn fortran(descr: &str, shape: &str, count: usize) -> Vec<u8> {
    let dict = format!("{{'descr': {descr}, 'fortran_order': True, 'shape': {shape}, }}\n");
    npy(&dict, count)
}

fn npy_files() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    const PLAIN: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";
    let plain = || npy(PLAIN, 8);
    let changed = |from: &str, to: &str| npy(&PLAIN.replace(from, to), 8);
    let ones = |count: usize| format!("({})", "1, ".repeat(count));
    vec![
        // Every type, in every byte order that it can be written in.
        ("float16", of("'<f2'", "(2, 3)", 12), Ok("float16 [2, 3]")),
        (
            "float16, big-endian",
            of("'>f2'", "(3,)", 6),
            Ok("float16 [3]"),
        ),
        ("float32", of("'<f4'", "(2, 3)", 24), Ok("float32 [2, 3]")),
        (
            "float32, big-endian",
            of("'>f4'", "(2, 3)", 24),
            Ok("float32 [2, 3]"),
        ),
        ("float32, native", of("'=f4'", "(1,)", 4), Ok("float32 [1]")),
        (
            "float32, no order",
            of("'|f4'", "(1,)", 4),
            Ok("float32 [1]"),
        ),
        ("float64", of("'<f8'", "(2,)", 16), Ok("float64 [2]")),
        (
            "float64, big-endian",
            of("'>f8'", "(2,)", 16),
            Ok("float64 [2]"),
        ),
        ("int8", of("'|i1'", "(4,)", 4), Ok("int8 [4]")),
        ("int8 with an order", of("'>i1'", "(4,)", 4), Ok("int8 [4]")),
        ("int16", of("'<i2'", "(2,)", 4), Ok("int16 [2]")),
        ("int16, big-endian", of("'>i2'", "(2,)", 4), Ok("int16 [2]")),
        ("int32", of("'<i4'", "(2,)", 8), Ok("int32 [2]")),
        ("int32, big-endian", of("'>i4'", "(2,)", 8), Ok("int32 [2]")),
        ("int64", of("'<i8'", "(2,)", 16), Ok("int64 [2]")),
        (
            "int64, big-endian",
            of("'>i8'", "(2,)", 16),
            Ok("int64 [2]"),
        ),
        ("uint8", of("'|u1'", "(4,)", 4), Ok("uint8 [4]")),
        ("uint16", of("'<u2'", "(2,)", 4), Ok("uint16 [2]")),
        (
            "uint32, big-endian",
            of("'>u4'", "(2,)", 8),
            Ok("uint32 [2]"),
        ),
        ("uint64", of("'<u8'", "(2,)", 16), Ok("uint64 [2]")),
        // Shapes.
        ("a single value", of("'<f4'", "()", 4), Ok("float32 []")),
        ("one value", of("'<f4'", "(1,)", 4), Ok("float32 [1]")),
        ("no value", of("'<f4'", "(0,)", 0), Ok("float32 [0]")),
        ("no row", of("'<f4'", "(0, 5)", 0), Ok("float32 [0, 5]")),
        ("no class", of("'<f4'", "(5, 0)", 0), Ok("float32 [5, 0]")),
        (
            "four dimensions",
            of("'|u1'", "(1, 2, 3, 4)", 24),
            Ok("uint8 [1, 2, 3, 4]"),
        ),
        (
            "64 dimensions",
            of("'|u1'", &ones(64), 1),
            Ok(
                "uint8 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]",
            ),
        ),
        (
            "Python 2's long integers",
            of("'<f4'", "(1L, 2L)", 8),
            Ok("float32 [1, 2]"),
        ),
        (
            "Fortran order of one dimension",
            fortran("'<f4'", "(2,)", 8),
            Ok("float32 [2]"),
        ),
        (
            "Fortran order of a column",
            fortran("'<f4'", "(2, 1)", 8),
            Ok("float32 [2, 1]"),
        ),
        (
            "Fortran order of nothing",
            fortran("'<f4'", "(0, 5)", 0),
            Ok("float32 [0, 5]"),
        ),
        // Headers as other writers have them.
        (
            "version 2.0",
            preamble([2, 0], PLAIN.len() as u64, PLAIN, 8),
            Ok("float32 [2]"),
        ),
        (
            "version 3.0",
            preamble([3, 0], PLAIN.len() as u64, PLAIN, 8),
            Ok("float32 [2]"),
        ),
        ("no line end", npy(PLAIN.trim_end(), 8), Ok("float32 [2]")),
        (
            "two line ends",
            npy(&format!("{PLAIN}\n"), 8),
            Ok("float32 [2]"),
        ),
        (
            "padded to 64 bytes",
            npy(&format!("{:117}\n", PLAIN.trim_end()), 8),
            Ok("float32 [2]"),
        ),
        (
            "padded to a page",
            npy(&format!("{:4085}\n", PLAIN.trim_end()), 8),
            Ok("float32 [2]"),
        ),
        (
            "padded to 32 KiB",
            npy(&format!("{:32757}\n", PLAIN.trim_end()), 8),
            Ok("float32 [2]"),
        ),
        (
            "no spaces",
            npy("{'shape':(2,),'descr':'<f4','fortran_order':False}", 8),
            Ok("float32 [2]"),
        ),
        (
            "double quotes",
            npy(&PLAIN.replace('\'', "\""), 8),
            Ok("float32 [2]"),
        ),
        (
            "spaces everywhere",
            npy(
                "  { 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 2 , ) , } ",
                8,
            ),
            Ok("float32 [2]"),
        ),
        // Not this format.
        (
            "nothing",
            Vec::new(),
            Err("0 bytes that start \"\"; supported is .npy 1.0, 2.0 or 3.0"),
        ),
        (
            "one byte",
            b"\x93".to_vec(),
            Err("1 bytes that start \"\\x93\""),
        ),
        (
            "the magic alone",
            b"\x93NUMPY".to_vec(),
            Err("6 bytes that start \"\\x93NUMPY\""),
        ),
        (
            "no minor version",
            b"\x93NUMPY\x01".to_vec(),
            Err("7 bytes that start"),
        ),
        (
            "no length",
            b"\x93NUMPY\x01\0".to_vec(),
            Err("8 bytes of .npy version 1.0"),
        ),
        (
            "half a length",
            b"\x93NUMPY\x01\0\x40".to_vec(),
            Err("9 bytes of .npy version 1.0"),
        ),
        (
            "text",
            b"1.0,2.0\n".to_vec(),
            Err("8 bytes that start \"1.0,2.0\\n\""),
        ),
        ("zeros", vec![0; 100], Err("100 bytes that start \"\\x00")),
        (
            "a byte before it",
            [&b" "[..], &plain()].concat(),
            Err("that start \" \\x93NUMPY"),
        ),
        (
            "a magic of text mode",
            plain().iter().skip(1).copied().collect(),
            Err("that start \"NUMPY"),
        ),
        (
            "a zip",
            b"PK\x03\x04\x14\0\0\0\x08\0".to_vec(),
            Err(
                "a zip archive, perhaps .npz; save one array of it: np.save('x.npy', np.load('x.npz')['name'])",
            ),
        ),
        (
            "gzip",
            b"\x1f\x8b\x08\0\0\0\0\0".to_vec(),
            Err("that start \"\\x1f\\x8b"),
        ),
        (
            "pickle",
            b"\x80\x04\x95\x10\0\0\0".to_vec(),
            Err("that start \"\\x80\\x04"),
        ),
        (
            "HDF5",
            b"\x89HDF\r\n\x1a\n".to_vec(),
            Err("that start \"\\x89HDF\\r\\n"),
        ),
        (
            "safetensors under this name",
            tensors("{}", 0),
            Err("10 bytes that start \"\\x02\\x00"),
        ),
        (
            "terminal escapes",
            b"\x1b[2J\x1b]0;owned\x07".to_vec(),
            Err("that start \"\\x1b[2J\\x1b]0;owned\\x07\""),
        ),
        // Versions and lengths.
        (
            "version 0.0",
            preamble([0, 0], 58, PLAIN, 8),
            Err("bytes of .npy version 0.0"),
        ),
        (
            "version 1.1",
            preamble([1, 1], 58, PLAIN, 8),
            Err("bytes of .npy version 1.1"),
        ),
        (
            "version 4.0",
            preamble([4, 0], 58, PLAIN, 8),
            Err("bytes of .npy version 4.0"),
        ),
        (
            "version 255.255",
            preamble([255, 255], 58, PLAIN, 8),
            Err("bytes of .npy version 255.255"),
        ),
        (
            "a header of nothing",
            npy("", 8),
            Err("expected { at header byte 0, found \"\""),
        ),
        (
            "a header past the end",
            preamble([1, 0], 67, PLAIN, 8),
            Err("76 bytes with a header of 67, 32758 at most"),
        ),
        (
            "a header of 65535",
            preamble([1, 0], 65_535, PLAIN, 8),
            Err("76 bytes with a header of 65535, 32758 at most"),
        ),
        (
            "a header of 4 GiB",
            preamble([2, 0], u64::from(u32::MAX), PLAIN, 8),
            Err("78 bytes with a header of 4294967295, 32756 at most"),
        ),
        (
            "a header one byte too long",
            npy(&format!("{:32758}\n", PLAIN.trim_end()), 8),
            Err("a header of 32759, 32758 at most"),
        ),
        (
            "a header one byte too short",
            preamble([1, 0], 55, PLAIN, 8),
            Err("expected } at header byte 55, found \"\""),
        ),
        (
            "a header that takes from the data",
            preamble([1, 0], 60, PLAIN, 8),
            Err("expected spaces and a line end at header byte 58, found \"\\x01\\x02\""),
        ),
        // Lengths of data.
        (
            "no data",
            npy(PLAIN, 0),
            Err("68 bytes, not 68 of header and 8 of data (float32, shape [2])"),
        ),
        (
            "one byte too few",
            npy(PLAIN, 7),
            Err("75 bytes, not 68 of header and 8 of data"),
        ),
        (
            "one byte too many",
            npy(PLAIN, 9),
            Err("77 bytes, not 68 of header and 8 of data"),
        ),
        (
            "two arrays",
            [plain(), plain()].concat(),
            Err("152 bytes, not 68 of header and 8 of data"),
        ),
        (
            "data of a shape without any",
            of("'<f4'", "(0, 5)", 4),
            Err("of header and 0 of data"),
        ),
        (
            "a shape of 4 PiB",
            of("'<f4'", "(1125899906842624,)", 8),
            Err("and 4503599627370496 of data (float32, shape [1125899906842624])"),
        ),
        // Types.
        (
            "bool",
            of("'|b1'", "(8,)", 8),
            Err(
                "dtype '|b1'; supported are float16, float32, float64, int8 to int64 and uint8 to uint64; convert with np.save('x.npy', np.ascontiguousarray(a.astype(np.uint8)))",
            ),
        ),
        (
            "complex",
            of("'<c8'", "(1,)", 8),
            Err("dtype '<c8'; supported are float16"),
        ),
        ("long double", of("'<f16'", "(1,)", 16), Err("dtype '<f16'")),
        (
            "bfloat16 as NumPy has it",
            of("'<V2'", "(4,)", 8),
            Err("dtype '<V2'"),
        ),
        (
            "objects, which are pickled",
            of("'|O'", "(1,)", 8),
            Err("dtype '|O'"),
        ),
        ("a type of text", of("'<U2'", "(1,)", 8), Err("dtype '<U2'")),
        (
            "a type of bytes",
            of("'|S8'", "(1,)", 8),
            Err("dtype '|S8'"),
        ),
        ("dates", of("'<M8[ns]'", "(1,)", 8), Err("dtype '<M8[ns]'")),
        (
            "a record",
            of("[('a', '<f4'), ('b', '<i4')]", "(1,)", 8),
            Err("expected a plain dtype (save a structured array by field, a['field'])"),
        ),
        (
            "a type with a shape",
            of("('<f4', (2,))", "(1,)", 8),
            Err("expected a quoted string at header byte 10, found \"(\\'<f4\\', (2,))"),
        ),
        ("no byte order", of("'f4'", "(2,)", 8), Err("dtype 'f4'")),
        (
            "an unknown byte order",
            of("'!f4'", "(2,)", 8),
            Err("dtype '!f4'"),
        ),
        ("an empty type", of("''", "(2,)", 8), Err("dtype ''")),
        (
            "a type with a space",
            of("'<f4 '", "(2,)", 8),
            Err("dtype '<f4 '"),
        ),
        (
            "a name for a type",
            of("'float32'", "(2,)", 8),
            Err("dtype 'float32'"),
        ),
        (
            "a size that there is not",
            of("'<f3'", "(2,)", 6),
            Err("dtype '<f3'"),
        ),
        (
            "escapes in a type",
            of("'<\\x66\\x34'", "(2,)", 8),
            Err("dtype '<\\\\x66\\\\x34'"),
        ),
        (
            "terminal escapes in a type",
            of("'\x1b[2J'", "(2,)", 8),
            Err("dtype '\\x1b[2J'"),
        ),
        (
            "a long type",
            of(&format!("'{}'", "f".repeat(10_000)), "(2,)", 8),
            Err("dtype 'ffffffffffffffffffffffff'; supported"),
        ),
        // Shapes.
        (
            "2⁶⁴ values",
            of("'|u1'", "(18446744073709551616,)", 8),
            Err("expected a dimension that can be addressed at header byte"),
        ),
        (
            "2⁶⁴ − 1 values",
            of("'|u1'", "(18446744073709551615,)", 8),
            Err("shape [18446744073709551615] of uint8 overflows"),
        ),
        (
            "2⁶³ bytes",
            of("'<f4'", "(2305843009213693952,)", 8),
            Err("shape [2305843009213693952] of float32 overflows"),
        ),
        (
            "a product of 2⁶⁴",
            of("'<f4'", "(4294967296, 4294967296)", 0),
            Err("overflows"),
        ),
        (
            "a product of 2⁶⁴ + 8",
            of("'|u1'", "(6148914691236517208, 3)", 8),
            Err("overflows"),
        ),
        (
            "a product that is 0 at the end",
            of("'<f4'", "(4294967296, 4294967296, 0)", 0),
            Err("overflows"),
        ),
        (
            "a negative dimension",
            of("'<f4'", "(-2,)", 8),
            Err("expected a dimension that can be addressed at header byte 51, found \"-2,)"),
        ),
        (
            "a plus",
            of("'<f4'", "(+2,)", 8),
            Err("expected a dimension"),
        ),
        (
            "a float for a dimension",
            of("'<f4'", "(2.0,)", 8),
            Err("expected , at header byte"),
        ),
        (
            "hexadecimal",
            of("'<f4'", "(0x2,)", 8),
            Err("expected , at header byte"),
        ),
        (
            "octal",
            of("'<f4'", "(02,)", 8),
            Err("expected a dimension"),
        ),
        (
            "underscores",
            of("'<f4'", "(1_0,)", 40),
            Err("expected , at header byte"),
        ),
        (
            "an expression",
            of("'<f4'", "(1+1,)", 8),
            Err("expected , at header byte"),
        ),
        (
            "True for a dimension",
            of("'<f4'", "(True,)", 4),
            Err("expected a dimension"),
        ),
        (
            "a number for a shape",
            of("'<f4'", "2", 8),
            Err("expected ( at header byte"),
        ),
        (
            "a number in parentheses",
            of("'<f4'", "(2)", 8),
            Err("expected , at header byte"),
        ),
        (
            "a list",
            of("'<f4'", "[2]", 8),
            Err("expected ( at header byte"),
        ),
        (
            "a nested shape",
            of("'<f4'", "((2,),)", 8),
            Err("expected a dimension"),
        ),
        (
            "a comma alone",
            of("'<f4'", "(,)", 4),
            Err("expected a dimension"),
        ),
        (
            "65 dimensions",
            of("'|u1'", &ones(65), 1),
            Err("expected the end of 64 dimensions"),
        ),
        (
            "9000 dimensions",
            of("'|u1'", &ones(9000), 1),
            Err("expected the end of 64 dimensions"),
        ),
        (
            "an open shape",
            changed("(2,), }", "(2,"),
            Err("expected a dimension that can be addressed"),
        ),
        (
            "Fortran order",
            fortran("'<f4'", "(2, 3)", 24),
            Err(
                "shape [2, 3] in Fortran order; supported is .npy 1.0, 2.0 or 3.0, one array in C order per file; convert with np.save('x.npy', np.ascontiguousarray(a))",
            ),
        ),
        (
            "Fortran order of a batch",
            fortran("'<f2'", "(1, 2, 3)", 12),
            Err("shape [1, 2, 3] in Fortran order"),
        ),
        // Headers.
        (
            "spaces for a header",
            npy(&" ".repeat(100), 8),
            Err("expected { at header byte 100"),
        ),
        (
            "30 000 open braces",
            npy(&"{".repeat(30_000), 8),
            Err("expected a quoted string at header byte 1, found \"{{{{"),
        ),
        (
            "30 000 open brackets in a type",
            of(&"[".repeat(30_000), "(2,)", 8),
            Err("expected a plain dtype"),
        ),
        (
            "an open brace",
            npy("{", 8),
            Err("expected a quoted string at header byte 1, found \"\""),
        ),
        (
            "an empty dict",
            npy("{}", 8),
            Err("expected a quoted string"),
        ),
        (
            "a missing key",
            changed("'fortran_order': False, ", ""),
            Err("expected a quoted string at header byte"),
        ),
        (
            "a key twice",
            changed("'fortran_order': False", "'descr': '<f4'"),
            Err("expected each of descr, fortran_order and shape"),
        ),
        (
            "a fourth key",
            changed(", }", ", 'x': 1}"),
            Err("expected } at header byte"),
        ),
        (
            "an unknown key",
            changed("'shape'", "'shapes'"),
            Err("expected the value of descr, fortran_order or shape"),
        ),
        (
            "a key in capitals",
            changed("'descr'", "'DESCR'"),
            Err("expected the value of descr"),
        ),
        (
            "a key without quotes",
            changed("'descr'", "descr"),
            Err("expected a quoted string at header byte 1"),
        ),
        (
            "no colon",
            changed("'descr':", "'descr'"),
            Err("expected : at header byte"),
        ),
        (
            "no comma",
            changed("'<f4',", "'<f4'"),
            Err("expected } at header byte"),
        ),
        (
            "two commas",
            changed("'<f4',", "'<f4',,"),
            Err("expected a quoted string"),
        ),
        (
            "an open string",
            changed("'<f4'", "'<f4"),
            Err("expected } at header byte 17, found \"fortran_order"),
        ),
        (
            "order as a number",
            changed("False", "0"),
            Err("expected True or False"),
        ),
        (
            "order in small letters",
            changed("False", "false"),
            Err("expected True or False"),
        ),
        (
            "text after the dict",
            changed("}", "} # float32"),
            Err("expected spaces and a line end"),
        ),
        (
            "a zero byte after the dict",
            changed("}", "}\0"),
            Err("expected spaces and a line end at header byte 57, found \"\\x00\\n\""),
        ),
        (
            "a line end of Windows",
            changed("\n", "\r\n"),
            Err("expected spaces and a line end"),
        ),
        (
            "a byte order mark",
            changed("{", "\u{feff}{"),
            Err("expected { at header byte 0, found \"\\xef\\xbb\\xbf{"),
        ),
        (
            "a call",
            npy("__import__('os').system('true')", 8),
            Err("expected { at header byte 0, found \"__import__"),
        ),
    ]
}

// ---- .safetensors ------------------------------------------------------------------------------

/// A file with this header, and so much data.
fn tensors(header: &str, count: usize) -> Vec<u8> {
    long(header.len() as u64, header, count)
}

/// Any length that the header is said to have.
fn long(length: u64, header: &str, count: usize) -> Vec<u8> {
    [&length.to_le_bytes()[..], header.as_bytes(), &data(count)].concat()
}

/// A tensor in a header.
fn entry(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
}

/// A file of one tensor, `a`.
fn one(dtype: &str, shape: &str, count: usize) -> Vec<u8> {
    let offsets = format!("[0,{count}]");
    tensors(
        &format!("{{{}}}", entry("a", dtype, shape, &offsets)),
        count,
    )
}

type Named = (&'static str, &'static str, Vec<u8>, Verdict);

fn safetensors_files() -> Vec<Named> {
    const FILE: &str = "x.safetensors";
    const A: &str = "x.safetensors:a";
    const B: &str = "x.safetensors:b";
    let a = |dtype, shape, offsets| entry("a", dtype, shape, offsets);
    let of = |entries: &[String], count| tensors(&format!("{{{}}}", entries.join(",")), count);
    let pair = |b: &str, count| {
        of(
            &[a("F32", "[1]", "[0,4]"), entry("b", "U8", "[2]", b)],
            count,
        )
    };
    let odd = |header: &str, count| tensors(header, count);
    let many = |count: usize| {
        let entry = |at: usize| entry(&format!("t{at}"), "U8", "[0]", "[0,0]");
        of(&(0..count).map(entry).collect::<Vec<_>>(), 0)
    };
    let ones = |count: usize| format!("[{}]", vec!["1"; count].join(","));
    vec![
        // Every type.
        (
            "float16",
            FILE,
            one("F16", "[2,3]", 12),
            Ok("float16 [2, 3]"),
        ),
        (
            "bfloat16",
            FILE,
            one("BF16", "[2,3]", 12),
            Ok("bfloat16 [2, 3]"),
        ),
        (
            "float32",
            FILE,
            one("F32", "[2,3]", 24),
            Ok("float32 [2, 3]"),
        ),
        ("float64", FILE, one("F64", "[2]", 16), Ok("float64 [2]")),
        ("int8", FILE, one("I8", "[3]", 3), Ok("int8 [3]")),
        ("int16", FILE, one("I16", "[3]", 6), Ok("int16 [3]")),
        ("int32", FILE, one("I32", "[3]", 12), Ok("int32 [3]")),
        ("int64", FILE, one("I64", "[3]", 24), Ok("int64 [3]")),
        ("uint8", FILE, one("U8", "[3]", 3), Ok("uint8 [3]")),
        ("uint16", FILE, one("U16", "[3]", 6), Ok("uint16 [3]")),
        ("uint32", FILE, one("U32", "[3]", 12), Ok("uint32 [3]")),
        ("uint64", FILE, one("U64", "[3]", 24), Ok("uint64 [3]")),
        // Shapes and headers.
        (
            "a single value",
            FILE,
            one("F32", "[]", 4),
            Ok("float32 []"),
        ),
        (
            "no value",
            FILE,
            one("F32", "[0,9]", 0),
            Ok("float32 [0, 9]"),
        ),
        (
            "by its name",
            A,
            one("F32", "[1,1]", 4),
            Ok("float32 [1, 1]"),
        ),
        ("the first of two", A, pair("[4,6]", 6), Ok("float32 [1]")),
        ("the second of two", B, pair("[4,6]", 6), Ok("uint8 [2]")),
        (
            "the header in another order",
            A,
            of(
                &[entry("b", "U8", "[2]", "[4,6]"), a("F32", "[1]", "[0,4]")],
                6,
            ),
            Ok("float32 [1]"),
        ),
        (
            "keys in another order",
            FILE,
            odd(
                r#"{"a":{"data_offsets":[0,4],"shape":[1],"dtype":"F32"}}"#,
                4,
            ),
            Ok("float32 [1]"),
        ),
        (
            "spaces everywhere",
            FILE,
            odd(
                "\t{ \"a\" : {\n\"dtype\" : \"F32\" , \"shape\" : [ 1 , 1 ] , \"data_offsets\" : [ 0 , 4 ] } }\r\n  ",
                4,
            ),
            Ok("float32 [1, 1]"),
        ),
        (
            "notes",
            A,
            odd(
                &format!(
                    r#"{{"__metadata__":{{"format":"pt"}},{}}}"#,
                    a("F32", "[1]", "[0,4]")
                ),
                4,
            ),
            Ok("float32 [1]"),
        ),
        (
            "notes at the end",
            FILE,
            odd(
                &format!(r#"{{{},"__metadata__":{{}}}}"#, a("F32", "[1]", "[0,4]")),
                4,
            ),
            Ok("float32 [1]"),
        ),
        (
            "notes of 200 000 bytes",
            FILE,
            odd(
                &format!(
                    r#"{{"__metadata__":{{"k":"{}"}},{}}}"#,
                    "\\\"é".repeat(50_000),
                    a("F32", "[1]", "[0,4]")
                ),
                4,
            ),
            Ok("float32 [1]"),
        ),
        (
            "an escaped name",
            A,
            of(&[entry("\\u0061", "F32", "[1]", "[0,4]")], 4),
            Ok("float32 [1]"),
        ),
        (
            "a name with a colon",
            "x.safetensors:a:b",
            of(&[entry("a:b", "F32", "[1]", "[0,4]")], 4),
            Ok("float32 [1]"),
        ),
        (
            "a name beyond ASCII",
            "x.safetensors:é😀",
            of(&[entry("é😀", "F32", "[1]", "[0,4]")], 4),
            Ok("float32 [1]"),
        ),
        (
            "a name of nothing",
            "x.safetensors:",
            of(&[entry("", "F32", "[1]", "[0,4]")], 4),
            Ok("float32 [1]"),
        ),
        (
            "a name of 1000 bytes",
            FILE,
            of(&[entry(&"n".repeat(1000), "F32", "[1]", "[0,4]")], 4),
            Ok("float32 [1]"),
        ),
        (
            "a type that is not read beside one that is",
            B,
            of(
                &[
                    a("F8_E4M3", "[4]", "[0,4]"),
                    entry("b", "U8", "[2]", "[4,6]"),
                ],
                6,
            ),
            Ok("uint8 [2]"),
        ),
        (
            "4-bit values beside it",
            B,
            of(
                &[a("F4", "[8]", "[0,4]"), entry("b", "U8", "[2]", "[4,6]")],
                6,
            ),
            Ok("uint8 [2]"),
        ),
        (
            "tensors of nothing between",
            B,
            of(
                &[
                    a("F32", "[0]", "[4,4]"),
                    entry("c", "F32", "[1]", "[0,4]"),
                    entry("b", "U8", "[2]", "[4,6]"),
                ],
                6,
            ),
            Ok("uint8 [2]"),
        ),
        (
            "2048 tensors",
            "x.safetensors:t2047",
            many(2048),
            Ok("uint8 [0]"),
        ),
        // Not this format.
        (
            "nothing",
            FILE,
            Vec::new(),
            Err(
                "0 bytes, too short for a header; supported is .safetensors; convert with safetensors.torch.save_file({'x': x.contiguous()}, 'x.safetensors')",
            ),
        ),
        (
            "7 bytes",
            FILE,
            vec![0; 7],
            Err("7 bytes, too short for a header"),
        ),
        (
            "a header of nothing",
            FILE,
            vec![0; 8],
            Err("expected { at header byte 0, found \"\""),
        ),
        (
            ".npy under this name",
            FILE,
            npy("{}", 0),
            Err("12 bytes with a header of"),
        ),
        (
            "text",
            FILE,
            b"1.0,2.0,3.0\n".to_vec(),
            Err("12 bytes with a header of"),
        ),
        (
            "a header of 2⁶⁴ − 1",
            FILE,
            long(u64::MAX, "{}", 0),
            Err("10 bytes with a header of 18446744073709551615, 100000000 at most"),
        ),
        (
            "a header past the end",
            FILE,
            long(3, "{}", 0),
            Err("10 bytes with a header of 3"),
        ),
        (
            "a header one byte too short",
            FILE,
            long(1, "{}", 0),
            Err("expected \" at header byte 1, found \"\""),
        ),
        (
            "no tensor",
            FILE,
            odd("{}", 0),
            Err("no tensor in it; supported is .safetensors"),
        ),
        (
            "notes alone",
            A,
            odd(r#"{"__metadata__":{}}"#, 0),
            Err("no tensor in it"),
        ),
        (
            "two tensors and no name",
            FILE,
            pair("[4,6]", 6),
            Err("x.safetensors:a; it holds 'a', 'b'"),
        ),
        (
            "another name",
            "x.safetensors:c",
            pair("[4,6]", 6),
            Err("no tensor 'c'; it holds 'a', 'b'"),
        ),
        (
            "a name of nothing that is not there",
            "x.safetensors:",
            pair("[4,6]", 6),
            Err("no tensor ''; it holds 'a', 'b'"),
        ),
        (
            "the notes by their name",
            "x.safetensors:__metadata__",
            odd(
                &format!(r#"{{"__metadata__":{{}},{}}}"#, a("F32", "[1]", "[0,4]")),
                4,
            ),
            Err("no tensor '__metadata__'; it holds 'a'"),
        ),
        (
            "100 tensors and no name",
            FILE,
            many(100),
            Err("'t19' and 80 more"),
        ),
        // Types.
        (
            "bool",
            FILE,
            one("BOOL", "[2]", 2),
            Err(
                "dtype BOOL; supported are F16, BF16, F32, F64, I8 to I64 and U8 to U64; convert with save_file({'x': x.to(torch.float32).contiguous()}, 'x.safetensors')",
            ),
        ),
        (
            "8-bit floats",
            FILE,
            one("F8_E5M2", "[2]", 2),
            Err("dtype F8_E5M2; supported are F16"),
        ),
        (
            "4-bit floats",
            FILE,
            one("F4", "[4]", 2),
            Err("dtype F4; supported are F16"),
        ),
        (
            "complex",
            FILE,
            one("C64", "[1]", 8),
            Err("dtype C64; supported are F16"),
        ),
        (
            "a type that there is not",
            FILE,
            one("F31", "[1]", 4),
            Err("dtype 'F31'; supported are F16"),
        ),
        (
            "a type that there is not, elsewhere",
            B,
            of(
                &[a("F31", "[1]", "[0,4]"), entry("b", "U8", "[2]", "[4,6]")],
                6,
            ),
            Err("dtype 'F31'"),
        ),
        (
            "a type in small letters",
            FILE,
            one("f32", "[1]", 4),
            Err("dtype 'f32'"),
        ),
        (
            "terminal escapes in a type",
            FILE,
            one("\\u001b[2J", "[1]", 4),
            Err("dtype '\\u{1b}[2J'"),
        ),
        (
            "half a byte",
            FILE,
            one("F4", "[3]", 1),
            Err("'a': data_offsets [0, 1] of F4, shape [3], 12 bits"),
        ),
        // Shapes.
        (
            "2⁶⁴ values",
            FILE,
            one("U8", "[18446744073709551616]", 1),
            Err("expected an integer that can be addressed at header byte"),
        ),
        (
            "2⁶⁴ − 1 values",
            FILE,
            one("U8", "[18446744073709551615]", 1),
            Err("'a': shape [18446744073709551615] of U8 overflows"),
        ),
        (
            "a product of 2⁶⁴",
            FILE,
            one("F32", "[4294967296,4294967296]", 0),
            Err("overflows"),
        ),
        (
            "a product that is 0 at the end",
            FILE,
            one("F32", "[4294967296,4294967296,0]", 0),
            Err("overflows"),
        ),
        (
            "a product of 2⁶⁴ bits",
            FILE,
            one("F32", "[576460752303423488]", 0),
            Err("overflows"),
        ),
        (
            "a negative dimension",
            FILE,
            one("F32", "[-1]", 4),
            Err("expected an integer"),
        ),
        (
            "a float for a dimension",
            FILE,
            one("F32", "[1.0]", 4),
            Err("expected ] at header byte"),
        ),
        (
            "an exponent",
            FILE,
            one("F32", "[1e0]", 4),
            Err("expected ] at header byte"),
        ),
        (
            "a leading zero",
            FILE,
            one("F32", "[01]", 4),
            Err("expected an integer"),
        ),
        (
            "a string for a dimension",
            FILE,
            one("F32", "[\"1\"]", 4),
            Err("expected an integer"),
        ),
        (
            "null for a shape",
            FILE,
            one("F32", "null", 4),
            Err("expected [ at header byte"),
        ),
        (
            "64 dimensions",
            FILE,
            one("U8", &ones(64), 1),
            Ok(
                "uint8 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]",
            ),
        ),
        (
            "65 dimensions",
            FILE,
            one("U8", &ones(65), 1),
            Err("expected the end of 64 integers"),
        ),
        (
            "100 000 dimensions",
            FILE,
            one("U8", &ones(100_000), 1),
            Err("expected the end of 64 integers"),
        ),
        // Offsets and lengths.
        (
            "one byte too few",
            FILE,
            of(&[a("F32", "[1]", "[0,4]")], 3),
            Err("65 bytes, not 62 of header and 4 of data"),
        ),
        (
            "one byte too many",
            FILE,
            of(&[a("F32", "[1]", "[0,4]")], 5),
            Err("67 bytes, not 62 of header and 4 of data"),
        ),
        (
            "a gap at the start",
            FILE,
            of(&[a("F32", "[1]", "[4,8]")], 8),
            Err("data_offsets [4, 8], where the data before ends at 0"),
        ),
        (
            "a gap",
            A,
            pair("[5,7]", 7),
            Err("data_offsets [5, 7], where the data before ends at 4"),
        ),
        (
            "an overlap",
            A,
            pair("[3,5]", 5),
            Err("data_offsets [3, 5], where the data before ends at 4"),
        ),
        (
            "the same data",
            A,
            of(
                &[a("F32", "[1]", "[0,4]"), entry("b", "F32", "[1]", "[0,4]")],
                4,
            ),
            Err("data_offsets [0, 4], where the data before ends at 4"),
        ),
        (
            "a tensor of nothing past the end",
            A,
            of(
                &[a("F32", "[1]", "[0,4]"), entry("b", "U8", "[0]", "[9,9]")],
                4,
            ),
            Err("data_offsets [9, 9], where the data before ends at 4"),
        ),
        (
            "a tensor of nothing within another",
            A,
            of(
                &[a("F32", "[1]", "[0,4]"), entry("b", "U8", "[0]", "[2,2]")],
                4,
            ),
            Err("data_offsets [2, 2], where the data before ends at 4"),
        ),
        (
            "offsets that run backwards",
            FILE,
            of(&[a("F32", "[1]", "[4,0]")], 4),
            Err("'a': data_offsets [4, 0] of F32, shape [1], 32 bits"),
        ),
        (
            "offsets shorter than the shape",
            FILE,
            of(&[a("F32", "[2]", "[0,4]")], 4),
            Err("'a': data_offsets [0, 4] of F32, shape [2], 64 bits"),
        ),
        (
            "offsets longer than the shape",
            FILE,
            of(&[a("F32", "[1]", "[0,8]")], 8),
            Err("'a': data_offsets [0, 8] of F32, shape [1], 32 bits"),
        ),
        (
            "an offset of 2⁶⁴ − 1",
            FILE,
            of(&[a("F32", "[1]", "[0,18446744073709551615]")], 4),
            Err("'a': data_offsets [0, 18446744073709551615] of F32"),
        ),
        (
            "one offset",
            FILE,
            of(&[a("F32", "[1]", "[4]")], 4),
            Err("'a': data_offsets [4] of F32"),
        ),
        (
            "three offsets",
            FILE,
            of(&[a("F32", "[1]", "[0,4,4]")], 4),
            Err("expected the end of 2 integers"),
        ),
        (
            "a negative offset",
            FILE,
            of(&[a("F32", "[1]", "[-4,0]")], 4),
            Err("expected an integer"),
        ),
        // Headers.
        (
            "two tensors of one name",
            A,
            of(&[a("U8", "[1]", "[0,1]"), a("U8", "[1]", "[1,2]")], 2),
            Err("two tensors of the name 'a'"),
        ),
        (
            "two of one name, one escaped",
            A,
            of(
                &[
                    a("U8", "[1]", "[0,1]"),
                    entry("\\u0061", "U8", "[1]", "[1,2]"),
                ],
                2,
            ),
            Err("two tensors of the name 'a'"),
        ),
        (
            "two of one name, and another is asked for",
            B,
            of(
                &[
                    entry("b", "U8", "[1]", "[0,1]"),
                    a("U8", "[1]", "[1,2]"),
                    a("U8", "[1]", "[2,3]"),
                ],
                3,
            ),
            Err("two tensors of the name 'a'"),
        ),
        (
            "notes twice",
            A,
            odd(
                &format!(
                    r#"{{"__metadata__":{{}},"__metadata__":{{}},{}}}"#,
                    a("U8", "[1]", "[0,1]")
                ),
                1,
            ),
            Err("two tensors of the name '__metadata__'"),
        ),
        (
            "notes that are not strings",
            A,
            odd(
                &format!(
                    r#"{{"__metadata__":{{"k":1}},{}}}"#,
                    a("U8", "[1]", "[0,1]")
                ),
                1,
            ),
            Err("expected \" at header byte"),
        ),
        (
            "2049 tensors",
            "x.safetensors:t0",
            many(2049),
            Err("more than 2048 tensors"),
        ),
        (
            "a name of 2000 bytes",
            FILE,
            of(&[entry(&"n".repeat(2000), "F32", "[1]", "[0,4]")], 4),
            Err("expected the end of a string of 1024 bytes"),
        ),
        (
            "a type of 10 MB",
            FILE,
            one(&"F".repeat(10_000_000), "[1]", 4),
            Err("expected the end of a string of 1024 bytes"),
        ),
        (
            "a missing key",
            FILE,
            odd(r#"{"a":{"dtype":"F32","shape":[1]}}"#, 4),
            Err("expected a map of dtype, shape and data_offsets"),
        ),
        (
            "a key twice",
            FILE,
            odd(r#"{"a":{"dtype":"F32","shape":[1],"shape":[1]}}"#, 4),
            Err("expected a map of dtype, shape and data_offsets"),
        ),
        (
            "an unknown key",
            FILE,
            odd(r#"{"a":{"dtype":"F32","shape":[1],"stride":[1]}}"#, 4),
            Err("expected a map of dtype, shape and data_offsets"),
        ),
        (
            "a fourth key",
            FILE,
            odd(
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}"#,
                1,
            ),
            Err("expected } at header byte"),
        ),
        (
            "a number for a tensor",
            FILE,
            odd(r#"{"a":1}"#, 0),
            Err("expected a map of dtype, shape and data_offsets at header byte 5, found \"1}\""),
        ),
        (
            "a list",
            FILE,
            odd("[]", 0),
            Err("expected { at header byte 0, found \"[]\""),
        ),
        (
            "two objects",
            FILE,
            odd("{}{}", 0),
            Err("expected the end of the header at header byte 2, found \"{}\""),
        ),
        (
            "a comma too many",
            FILE,
            odd(&format!("{{{},}}", a("U8", "[1]", "[0,1]")), 1),
            Err("expected \" at header byte"),
        ),
        (
            "a comma too many in a tensor",
            FILE,
            odd(
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],}}"#,
                1,
            ),
            Err("expected } at header byte 51, found \",}}\""),
        ),
        (
            "a comma too many in a shape",
            FILE,
            one("U8", "[1,]", 1),
            Err("expected an integer"),
        ),
        (
            "single quotes",
            FILE,
            odd("{'a':1}", 0),
            Err("expected \" at header byte 1, found \"\\'a\\':1}\""),
        ),
        (
            "zeros after the object",
            FILE,
            odd("{}\0\0", 0),
            Err("expected the end of the header at header byte 2, found \"\\x00\\x00\""),
        ),
        (
            "an open string",
            FILE,
            odd(r#"{"a"#, 0),
            Err("expected a closed string"),
        ),
        (
            "an unknown escape",
            FILE,
            of(&[entry("\\x", "U8", "[1]", "[0,1]")], 1),
            Err("which is no JSON: invalid escape"),
        ),
        (
            "half a surrogate pair",
            FILE,
            of(&[entry("\\ud83d", "U8", "[1]", "[0,1]")], 1),
            Err("which is no JSON"),
        ),
        (
            "a line end in a name",
            FILE,
            of(&[entry("a\n", "U8", "[1]", "[0,1]")], 1),
            Err("which is no JSON: control character"),
        ),
        (
            "bytes that are not UTF-8",
            FILE,
            [&9u64.to_le_bytes()[..], b"{\"\xff\":1}  "].concat(),
            Err("which is no JSON: invalid unicode code point"),
        ),
        (
            "100 000 open brackets",
            FILE,
            odd(&"[".repeat(100_000), 0),
            Err("expected { at header byte 0, found \"[[[["),
        ),
        (
            "100 000 open brackets in a tensor",
            FILE,
            odd(&format!(r#"{{"a":{}"#, "[".repeat(100_000)), 0),
            Err("expected a map of dtype, shape and data_offsets at header byte 5, found \"[[[["),
        ),
        (
            "100 000 open braces",
            FILE,
            odd(&r#"{"a":"#.repeat(100_000), 0),
            Err("expected a map of dtype, shape and data_offsets"),
        ),
    ]
}
