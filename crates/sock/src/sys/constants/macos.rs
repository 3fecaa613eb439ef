//! The constants of macOS in groups: those of Linux's list that its headers define, and its own.

/// Passes the names of one group to the macro `$then`, after the tokens `$first`.
macro_rules! with_names {
    (AF $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            AF_APPLETALK AF_DECnet AF_INET AF_INET6 AF_IPX AF_ROUTE AF_SNA AF_UNIX
            AF_UNSPEC AF_VSOCK AF_SYSTEM AF_LINK
        }
    };
    (SOCK $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            SOCK_DGRAM SOCK_RAW SOCK_RDM SOCK_SEQPACKET SOCK_STREAM
        }
    };
    (MSG $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            MSG_CTRUNC MSG_DONTROUTE MSG_DONTWAIT MSG_EOR MSG_NOSIGNAL MSG_OOB
            MSG_PEEK MSG_TRUNC MSG_WAITALL
        }
    };
    (AI $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            AI_ADDRCONFIG AI_ALL AI_CANONNAME AI_NUMERICHOST AI_NUMERICSERV
            AI_PASSIVE AI_V4MAPPED
        }
    };
    (EAI $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            EAI_ADDRFAMILY EAI_AGAIN EAI_BADFLAGS EAI_FAIL EAI_FAMILY EAI_MEMORY
            EAI_NODATA EAI_NONAME EAI_OVERFLOW EAI_SERVICE EAI_SOCKTYPE EAI_SYSTEM
        }
    };
    (LEVELS $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            IPPROTO_AH IPPROTO_DSTOPTS IPPROTO_EGP IPPROTO_ESP IPPROTO_FRAGMENT
            IPPROTO_GRE IPPROTO_HOPOPTS IPPROTO_ICMP IPPROTO_ICMPV6 IPPROTO_IDP
            IPPROTO_IGMP IPPROTO_IP IPPROTO_IPIP IPPROTO_IPV6 IPPROTO_NONE
            IPPROTO_PIM IPPROTO_PUP IPPROTO_RAW IPPROTO_ROUTING IPPROTO_RSVP
            IPPROTO_SCTP IPPROTO_TCP IPPROTO_TP IPPROTO_UDP SOL_SOCKET
        }
    };
    (SO $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            SO_ACCEPTCONN SO_BROADCAST SO_DEBUG SO_DONTROUTE SO_ERROR SO_KEEPALIVE
            SO_LINGER SO_OOBINLINE SO_RCVBUF SO_RCVLOWAT SO_RCVTIMEO SO_REUSEADDR
            SO_REUSEPORT SO_SNDBUF SO_SNDLOWAT SO_SNDTIMEO SO_TIMESTAMP SO_TYPE
            SO_NOSIGPIPE
        }
    };
    (TCP $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            TCP_FASTOPEN TCP_KEEPCNT TCP_KEEPINTVL TCP_MAXSEG TCP_NODELAY
            TCP_KEEPALIVE
        }
    };
    (IP $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            IP_ADD_MEMBERSHIP IP_DROP_MEMBERSHIP IP_HDRINCL IP_MULTICAST_IF
            IP_MULTICAST_LOOP IP_MULTICAST_TTL IP_PKTINFO IP_RECVTOS IP_RECVTTL
            IP_TOS IP_TTL
        }
    };
    (IPV6 $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            IPV6_CHECKSUM IPV6_DONTFRAG IPV6_HOPLIMIT IPV6_JOIN_GROUP
            IPV6_LEAVE_GROUP IPV6_MULTICAST_HOPS IPV6_MULTICAST_IF
            IPV6_MULTICAST_LOOP IPV6_PKTINFO IPV6_RECVHOPLIMIT IPV6_RECVPKTINFO
            IPV6_RECVTCLASS IPV6_TCLASS IPV6_UNICAST_HOPS IPV6_V6ONLY
        }
    };
    (UNSIGNED $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            INADDR_ANY INADDR_BROADCAST INADDR_LOOPBACK INADDR_NONE VMADDR_CID_ANY
            VMADDR_CID_HOST VMADDR_PORT_ANY
        }
    };
    (VALUES $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            NI_DGRAM NI_MAXHOST NI_MAXSERV NI_NAMEREQD NI_NOFQDN NI_NUMERICHOST
            NI_NUMERICSERV SCM_RIGHTS SOMAXCONN
        }
    };
}
pub(crate) use with_names;

/// The C names: those of `libc`, and constants that it lacks.
pub(crate) mod c {
    pub(crate) use libc::*;

    pub(crate) const EAI_ADDRFAMILY: i32 = 1;
    // macOS lacks these flags of Linux's socket(2). 0 means that they are never set.
    pub(crate) const SOCK_CLOEXEC: i32 = 0;
    pub(crate) const SOCK_NONBLOCK: i32 = 0;
    pub(crate) const SO_PROTOCOL: i32 = -1;
    pub(crate) const ENONET: i32 = ENETUNREACH;
}

/// The option for `struct tcp_info`, if it has the layout of Linux.
pub(crate) const TCP_INFO_OPTION: Option<i32> = None;

/// Names of the TCP states in the order of their numbers, which are not used here.
pub(crate) const TCP_STATES: &[&str] = &[];

/// The item for the local address of an IPv4 packet: `struct in_pktinfo`.
pub(crate) const IPV4_PKTINFO: i32 = c::IP_PKTINFO;

/// Items that contain a `struct timeval`.
pub(crate) const TIMEVAL_ITEMS: &[i32] = &[c::SCM_TIMESTAMP];

/// Items that contain a `struct timespec`.
pub(crate) const TIMESPEC_ITEMS: &[i32] = &[];
