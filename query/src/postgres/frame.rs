//! Reads one message after another, and lets only well-formed ones of bounded length through to pgwire.
//!
//! pgwire waits for a message of any length up to a gigabyte before it looks at it, and its decoders panic where a body is
//! shorter than its own fields say. So the length is checked as soon as it is known, and the body before it is decoded.

use std::mem;

use bytes::BytesMut;
use datafusion_postgres::pgwire::{
    api::{ClientInfo as _, PgWireConnectionState},
    error::PgWireResult,
    messages::PgWireFrontendMessage,
    tokio::server::{MaybeTls, PgWireMessageServerCodec},
};
use tokio::io::AsyncReadExt as _;
use tokio_util::codec::{Decoder as _, Framed};

use super::client_error::protocol_violation;

pub(super) type Socket<S> = Framed<MaybeTls, PgWireMessageServerCodec<S>>;

/// The length field, which counts itself.
const LENGTH: usize = 4;

/// The next message; `None` when the client has closed the connection.
///
/// # Errors
/// When the client cannot be read from, or the message is malformed or longer than `max_length` bytes.
pub(super) async fn next<S: Send + 'static>(
    socket: &mut Socket<S>,
    max_length: usize,
) -> PgWireResult<Option<PgWireFrontendMessage>> {
    // The buffer is taken out of the socket so that both can be used at once.
    let mut buffer = mem::take(socket.read_buffer_mut());
    let typed =
        !matches!(socket.state(), PgWireConnectionState::AwaitingSslRequest | PgWireConnectionState::AwaitingStartup);
    let mut frame = loop {
        if let Some(frame) = split(&mut buffer, typed, max_length)? {
            break frame;
        }
        if socket.get_mut().read_buf(&mut buffer).await? == 0 {
            return Ok(None);
        }
    };
    *socket.read_buffer_mut() = buffer;
    if typed && !is_well_formed(frame[0], &frame[1 + LENGTH..]) {
        return Err(protocol_violation(format!("a message of type {:?} is malformed", char::from(frame[0]))));
    }
    let message = socket.codec_mut().decode(&mut frame)?;
    message.map(Some).ok_or_else(|| protocol_violation("a message is shorter than its length says"))
}

/// Takes one whole message off the buffer, if it is there.
fn split(buffer: &mut BytesMut, typed: bool, max_length: usize) -> PgWireResult<Option<BytesMut>> {
    let kind = usize::from(typed);
    // The first message has no type, and holds a version at least.
    let min_length = if typed { LENGTH } else { 2 * LENGTH };
    let Some(length) = buffer.get(kind..).and_then(|bytes| bytes.first_chunk::<LENGTH>()) else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    match usize::try_from(length) {
        Ok(length) if length < min_length => Err(protocol_violation(format!(
            "expected a message of at least {min_length} bytes, found a length of {length}"
        ))),
        Ok(length) if length <= max_length => {
            let whole = kind + length;
            Ok((buffer.len() >= whole).then(|| buffer.split_to(whole)))
        }
        _ => Err(protocol_violation(format!(
            "expected a message of at most {max_length} bytes here, found a length of {length}"
        ))),
    }
}

/// Whether the body of a message has the fields of its type, whole, and nothing else.
fn is_well_formed(kind: u8, body: &[u8]) -> bool {
    let mut body = Body(body);
    let fields = match kind {
        b'Q' | b'f' => body.text(),
        b'P' => body.text().and_then(|()| body.text()).and_then(|()| body.list(4)),
        b'B' => body
            .text()
            .and_then(|()| body.text())
            .and_then(|()| body.list(2))
            .and_then(|()| body.values())
            .and_then(|()| body.list(2)),
        b'C' | b'D' => body.skip(1).and_then(|()| body.text()),
        b'E' => body.text().and_then(|()| body.skip(4)),
        b'S' | b'H' | b'X' | b'c' => Some(()),
        // Of passwords and copied data the body is the value. The content of a password is checked by `login`.
        b'p' | b'd' => return true,
        _ => return false,
    };
    fields.is_some() && body.0.is_empty()
}

/// The initial response of SASL: a mechanism, and optionally data.
pub(super) fn is_initial_response(body: &[u8]) -> bool {
    let mut body = Body(body);
    body.text().and_then(|()| body.value()).is_some() && body.0.is_empty()
}

/// The rest of a body.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    /// Ended by a zero.
    fn text(&mut self) -> Option<()> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        self.skip(end + 1)
    }

    fn count(&mut self) -> Option<usize> {
        let count = u16::from_be_bytes(*self.0.first_chunk()?);
        self.skip(2)?;
        Some(count.into())
    }

    /// A count, and as many items of `size` bytes.
    fn list(&mut self, size: usize) -> Option<()> {
        let count = self.count()?;
        self.skip(count * size)
    }

    /// A length and as many bytes; a length of -1 is null.
    fn value(&mut self) -> Option<()> {
        let length = i32::from_be_bytes(*self.0.first_chunk()?);
        self.skip(4)?;
        match length {
            -1 => Some(()),
            length => self.skip(usize::try_from(length).ok()?),
        }
    }

    fn values(&mut self) -> Option<()> {
        (0..self.count()?).try_for_each(|_| self.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_their_fields_and_nothing_else() {
        let well_formed: [(u8, &[u8]); 9] = [
            (b'Q', b"select 1\0"),
            (b'P', b"name\0select 1\0\0\x01\0\0\0\x17"),
            (b'B', b"\0name\0\0\0\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x01\0\x01"),
            (b'D', b"Sname\0"),
            (b'C', b"P\0"),
            (b'E', b"\0\0\0\0\0"),
            (b'S', b""),
            (b'p', b"anything"),
            (b'd', b""),
        ];
        for (kind, body) in well_formed {
            assert!(is_well_formed(kind, body), "{}", char::from(kind));
            if !matches!(kind, b'p' | b'd') {
                let longer = [body, b"\x01"].concat();
                assert!(!is_well_formed(kind, &longer), "{} with one byte more", char::from(kind));
            }
            for end in 0..body.len() {
                let cut = is_well_formed(kind, &body[..end]);
                assert_eq!(cut, kind == b'p', "{} cut to {end}", char::from(kind));
            }
        }
        for (kind, body) in
            [(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0".as_slice()), (b'?', b""), (b'B', b"\0\0\xff\xff")]
        {
            assert!(!is_well_formed(kind, body), "{body:?}");
        }
    }

    #[test]
    fn an_initial_response_is_a_mechanism_and_data() {
        for body in [b"SCRAM-SHA-256\0\0\0\0\x01n".as_slice(), b"PLAIN\0\xff\xff\xff\xff", b"\0\0\0\0\0"] {
            assert!(is_initial_response(body), "{body:?}");
        }
        for body in [
            b"".as_slice(),
            b"S",
            b"S\0",
            b"S\0\0\0\0",
            b"S\0\0\0\0\x05n",
            b"S\0\0\0\0\0n",
            b"S\0\x80\0\0\0",
            b"\xff\xff\xff\xff",
        ] {
            assert!(!is_initial_response(body), "{body:?}");
        }
    }

    #[test]
    fn lengths_are_judged_before_the_body_is_there() {
        let split =
            |bytes: &[u8], typed| split(&mut BytesMut::from(bytes), typed, 100).map(|frame| frame.map(|f| f.len()));
        assert!(matches!(split(b"Q\0\0\0", true), Ok(None)));
        assert!(matches!(split(b"Q\0\0\0\x05", true), Ok(None)));
        assert!(matches!(split(b"Q\0\0\0\x05\0Q", true), Ok(Some(6))));
        assert!(matches!(split(b"\0\0\0\x08\0\x03\0\0", false), Ok(Some(8))));
        for (bytes, typed) in [
            (b"Q\0\0\0\x65".as_slice(), true),
            (b"Q\x3f\xff\xff\xfe", true),
            (b"Q\xff\xff\xff\xff", true),
            (b"Q\0\0\0\x03", true),
            (b"\0\0\0\x07", false),
            (b"\0\0\0\0", false),
        ] {
            assert!(split(bytes, typed).is_err(), "{bytes:?}");
        }
    }
}
