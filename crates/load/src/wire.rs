//! The bytes of a connection, TCP or TLS over it, and when they arrived. On Linux the system notes when the last byte of a
//! read came from the network: the time does not depend on when this program is given a processor.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A longer time between arrival and read is not believed: the clock of the machine was set in between.
const LONGEST_LAG: Duration = Duration::from_secs(60);

/// A byte stream.
pub enum Wire {
    /// TCP.
    Tcp(TcpStream),
    /// TLS over TCP. The time of arrival is not known: the bytes of several packets are decrypted at once.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Bytes that were read.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// How many; 0 at the end of the connection.
    pub length: usize,
    /// When the last of them arrived; the time of the read where that is not known.
    pub arrived: Instant,
    /// From the arrival to the read, if it is known.
    pub lag: Option<Duration>,
}

impl Read {
    /// A read that ended at `now`, and whose last byte arrived `lag` before.
    fn at(now: Instant, length: usize, lag: Option<Duration>) -> Self {
        let lag = lag.filter(|lag| *lag < LONGEST_LAG);
        Self { length, arrived: lag.and_then(|lag| now.checked_sub(lag)).unwrap_or(now), lag }
    }
}

/// Prepares a connection: small writes are sent at once, and the system notes when bytes arrive.
pub fn note_arrivals(stream: &TcpStream) {
    // If one of the two fails, the connection is closed already, or the times are those of the reads.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::ReceiveTimestampns, &true);
}

/// Reads the next bytes of a connection.
///
/// # Errors
/// The connection is broken.
pub async fn read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<Read> {
    loop {
        stream.readable().await?;
        #[cfg(target_os = "linux")]
        let received = stream.try_io(Interest::READABLE, || receive::receive(stream, buffer));
        #[cfg(not(target_os = "linux"))]
        let received = stream.try_read(buffer).map(|length| Read::at(Instant::now(), length, None));
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => return received,
        }
    }
}

impl Wire {
    /// A TCP connection. Small requests are sent at once.
    pub fn tcp(stream: TcpStream) -> Self {
        note_arrivals(&stream);
        Self::Tcp(stream)
    }

    /// Reads the next bytes.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<Read> {
        match self {
            Self::Tcp(stream) => read(stream, buffer).await,
            Self::Tls(stream) => {
                let length = stream.read(buffer).await?;
                Ok(Read::at(Instant::now(), length, None))
            }
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Whether the server has neither closed it nor sent anything without a request.
    pub fn is_quiet(&mut self) -> bool {
        let mut buffer = [0];
        match self {
            Self::Tcp(stream) => {
                matches!(stream.try_read(&mut buffer), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(stream) => {
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                let mut buffer = tokio::io::ReadBuf::new(&mut buffer);
                let read = tokio::io::AsyncRead::poll_read(std::pin::Pin::new(stream), &mut context, &mut buffer);
                read.is_pending()
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod receive {
    use std::io::{self, IoSliceMut};
    use std::os::fd::AsRawFd;
    use std::time::{Duration, Instant};

    use nix::cmsg_space;
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    use nix::sys::time::TimeSpec;
    use nix::time::{ClockId, clock_gettime};
    use tokio::net::TcpStream;

    use super::Read;

    /// The two clocks are read within this time of one another, or again.
    const TOGETHER: Duration = Duration::from_micros(5);

    /// How often the clocks are read at most.
    const READINGS: usize = 4;

    /// Reads once, without waiting.
    pub fn receive(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<Read> {
        let mut parts = [IoSliceMut::new(buffer)];
        let mut space = cmsg_space!(TimeSpec);
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
        let arrived = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
            _ => None,
        });
        let (now, clock) = now()?;
        Ok(Read::at(now, message.bytes, arrived.and_then(|arrived| clock.checked_sub(arrived))))
    }

    /// The time by the clock of this program and by that of the machine, which notes the arrivals.
    fn now() -> io::Result<(Instant, Duration)> {
        let mut now = Instant::now();
        for _ in 0..READINGS {
            let clock = Duration::from(clock_gettime(ClockId::CLOCK_REALTIME)?);
            let after = Instant::now();
            if after.duration_since(now) < TOGETHER {
                return Ok((now, clock));
            }
            now = after;
        }
        Ok((now, Duration::from(clock_gettime(ClockId::CLOCK_REALTIME)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pair() -> (Wire, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Wire::tcp(client), listener.accept().await.unwrap().0)
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn bytes_arrive_when_they_come_and_not_when_they_are_read() {
        let (mut wire, mut server) = pair().await;
        let mut buffer = [0; 64];
        // The first timestamps of a machine may be missing: the system switches them on in the background.
        let mut lag = None;
        for _ in 0..20 {
            server.write_all(b"abc").await.unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
            let now = Instant::now();
            let read = wire.read(&mut buffer).await.unwrap();
            assert_eq!(read.length, 3);
            if let Some(found) = read.lag {
                assert!(now.duration_since(read.arrived) >= Duration::from_millis(25), "{read:?}");
                lag = Some(found);
                break;
            }
        }
        assert!(lag.unwrap() >= Duration::from_millis(25), "{lag:?}");
    }

    #[tokio::test]
    async fn a_connection_is_quiet_until_the_server_sends_or_closes() {
        let (mut wire, server) = pair().await;
        assert!(wire.is_quiet());
        drop(server);
        let read = wire.read(&mut [0; 8]).await.unwrap();
        assert_eq!((read.length, wire.is_quiet()), (0, false));
    }
}
