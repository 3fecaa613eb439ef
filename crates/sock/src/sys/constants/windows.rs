//! The constants of Windows in groups: those of Linux's list that WinSock defines, and its own.

/// Passes the names of one group to the macro `$then`, after the tokens `$first`.
macro_rules! with_names {
    (AF $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            AF_APPLETALK AF_DECnet AF_INET AF_INET6 AF_IPX AF_IRDA AF_SNA AF_UNIX AF_UNSPEC
        }
    };
    (SOCK $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            SOCK_DGRAM SOCK_RAW SOCK_RDM SOCK_SEQPACKET SOCK_STREAM
        }
    };
    (MSG $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            MSG_CTRUNC MSG_DONTROUTE MSG_ERRQUEUE MSG_OOB MSG_PEEK MSG_TRUNC MSG_WAITALL
        }
    };
    (AI $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            AI_ADDRCONFIG AI_ALL AI_CANONNAME AI_NUMERICHOST AI_NUMERICSERV AI_PASSIVE AI_V4MAPPED
        }
    };
    (EAI $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            EAI_AGAIN EAI_BADFLAGS EAI_FAIL EAI_FAMILY EAI_MEMORY EAI_NONAME EAI_SERVICE EAI_SOCKTYPE
        }
    };
    (LEVELS $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            IPPROTO_AH IPPROTO_DSTOPTS IPPROTO_EGP IPPROTO_ESP IPPROTO_FRAGMENT IPPROTO_HOPOPTS
            IPPROTO_ICMP IPPROTO_ICMPV6 IPPROTO_IDP IPPROTO_IGMP IPPROTO_IP IPPROTO_IPV6 IPPROTO_NONE
            IPPROTO_PIM IPPROTO_PUP IPPROTO_RAW IPPROTO_ROUTING IPPROTO_SCTP IPPROTO_TCP IPPROTO_UDP
            SOL_IP SOL_SOCKET
        }
    };
    (SO $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            SO_ACCEPTCONN SO_BROADCAST SO_DEBUG SO_DONTROUTE SO_ERROR SO_EXCLUSIVEADDRUSE SO_KEEPALIVE
            SO_LINGER SO_OOBINLINE SO_RCVBUF SO_RCVLOWAT SO_RCVTIMEO SO_REUSEADDR SO_SNDBUF SO_SNDLOWAT
            SO_SNDTIMEO SO_TIMESTAMP SO_TYPE
        }
    };
    (TCP $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            TCP_FASTOPEN TCP_KEEPCNT TCP_KEEPIDLE TCP_KEEPINTVL TCP_MAXSEG TCP_NODELAY
        }
    };
    (IP $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            IP_ADD_MEMBERSHIP IP_DROP_MEMBERSHIP IP_HDRINCL IP_MTU IP_MTU_DISCOVER IP_MULTICAST_IF
            IP_MULTICAST_LOOP IP_MULTICAST_TTL IP_OPTIONS IP_PKTINFO IP_RECVERR IP_RECVTOS IP_RECVTTL
            IP_TOS IP_TTL
        }
    };
    (IPV6 $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            IPV6_CHECKSUM IPV6_DONTFRAG IPV6_HOPLIMIT IPV6_HOPOPTS IPV6_JOIN_GROUP IPV6_LEAVE_GROUP
            IPV6_MULTICAST_HOPS IPV6_MULTICAST_IF IPV6_MULTICAST_LOOP IPV6_PKTINFO IPV6_RECVRTHDR
            IPV6_RECVTCLASS IPV6_RTHDR IPV6_TCLASS IPV6_UNICAST_HOPS IPV6_V6ONLY
        }
    };
    (UNSIGNED $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            INADDR_ANY INADDR_BROADCAST INADDR_LOOPBACK INADDR_NONE RCVALL_MAX RCVALL_OFF RCVALL_ON
            RCVALL_SOCKETLEVELONLY SIO_KEEPALIVE_VALS SIO_LOOPBACK_FAST_PATH SIO_RCVALL
        }
    };
    (VALUES $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            IPPORT_RESERVED IP_DEFAULT_MULTICAST_LOOP IP_DEFAULT_MULTICAST_TTL IP_MAX_MEMBERSHIPS NI_DGRAM
            NI_MAXHOST NI_MAXSERV NI_NAMEREQD NI_NOFQDN NI_NUMERICHOST NI_NUMERICSERV SOMAXCONN
        }
    };
}
pub(crate) use with_names;

/// The C names: those of WinSock, under their BSD names where these differ.
pub(crate) mod c {
    pub(crate) use windows_sys::Win32::Networking::WinSock::{
        ADDRESS_FAMILY as sa_family_t, ADDRINFOA as addrinfo, HOSTENT as hostent, PROTOENT as protoent,
        SERVENT as servent, SOCKADDR as sockaddr, SOCKADDR_STORAGE as sockaddr_storage,
        SOCKADDR_UN as sockaddr_un, *,
    };

    /// Python's default backlog is 128 at most. WinSock's header defines 5, a value of 1992;
    /// 0x7fffffff stands for a reasonable maximum.
    pub(crate) const SOMAXCONN: i32 = 0x7fff_ffff;
    pub(crate) const RCVALL_MAX: i32 = 3;
    // setsockopt takes options as `int`, on Windows too.
    pub(crate) const MCAST_JOIN_GROUP: i32 = 41;
    pub(crate) const MCAST_LEAVE_GROUP: i32 = 42;
    pub(crate) const MCAST_JOIN_SOURCE_GROUP: i32 = 45;
    pub(crate) const MCAST_LEAVE_SOURCE_GROUP: i32 = 46;

    // getaddrinfo returns WinSock errors (Ws2tcpip.h).
    pub(crate) const EAI_AGAIN: i32 = WSATRY_AGAIN;
    pub(crate) const EAI_BADFLAGS: i32 = WSAEINVAL;
    pub(crate) const EAI_FAIL: i32 = WSANO_RECOVERY;
    pub(crate) const EAI_FAMILY: i32 = WSAEAFNOSUPPORT;
    pub(crate) const EAI_MEMORY: i32 = WSA_NOT_ENOUGH_MEMORY;
    pub(crate) const EAI_NONAME: i32 = WSAHOST_NOT_FOUND;
    pub(crate) const EAI_SERVICE: i32 = WSATYPE_NOT_FOUND;
    pub(crate) const EAI_SOCKTYPE: i32 = WSAESOCKTNOSUPPORT;

    macro_rules! errnos {
        ($($name:ident = $wsa:ident)*) => {
            $(
                #[allow(dead_code, reason = "most are used only in the table")]
                pub(crate) const $name: i32 = $wsa;
            )*

            /// The errors of socket calls, by their Unix names: `ECONNREFUSED` for
            /// `WSAECONNREFUSED`.
            pub(crate) const ERRNOS: &[(i32, &str)] = &[$(($wsa, stringify!($name))),*];
        };
    }
    errnos! {
        EACCES = WSAEACCES EADDRINUSE = WSAEADDRINUSE EADDRNOTAVAIL = WSAEADDRNOTAVAIL
        EAFNOSUPPORT = WSAEAFNOSUPPORT EAGAIN = WSAEWOULDBLOCK EALREADY = WSAEALREADY EBADF = WSAEBADF
        ECONNABORTED = WSAECONNABORTED ECONNREFUSED = WSAECONNREFUSED ECONNRESET = WSAECONNRESET
        EDESTADDRREQ = WSAEDESTADDRREQ EFAULT = WSAEFAULT EHOSTDOWN = WSAEHOSTDOWN
        EHOSTUNREACH = WSAEHOSTUNREACH EINPROGRESS = WSAEINPROGRESS EINTR = WSAEINTR EINVAL = WSAEINVAL
        EISCONN = WSAEISCONN ELOOP = WSAELOOP EMFILE = WSAEMFILE EMSGSIZE = WSAEMSGSIZE
        ENAMETOOLONG = WSAENAMETOOLONG ENETDOWN = WSAENETDOWN ENETRESET = WSAENETRESET
        ENETUNREACH = WSAENETUNREACH ENOBUFS = WSAENOBUFS ENOPROTOOPT = WSAENOPROTOOPT
        ENOTCONN = WSAENOTCONN ENOTSOCK = WSAENOTSOCK EOPNOTSUPP = WSAEOPNOTSUPP
        EPFNOSUPPORT = WSAEPFNOSUPPORT EPROTONOSUPPORT = WSAEPROTONOSUPPORT EPROTOTYPE = WSAEPROTOTYPE
        ESHUTDOWN = WSAESHUTDOWN ESOCKTNOSUPPORT = WSAESOCKTNOSUPPORT ETIMEDOUT = WSAETIMEDOUT
        ETOOMANYREFS = WSAETOOMANYREFS EUSERS = WSAEUSERS
    }
}
pub(crate) use c::ERRNOS;

/// The option for `struct tcp_info`, if it has the layout of Linux.
pub(crate) const TCP_INFO_OPTION: Option<i32> = None;

/// Names of the TCP states in the order of their numbers, which are not used here.
pub(crate) const TCP_STATES: &[&str] = &[];
