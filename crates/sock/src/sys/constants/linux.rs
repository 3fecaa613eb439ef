//! The constants of Linux in groups, and the values that `libc` lacks.
//!
//! The list is that of CPython 3.11 on Linux (`dir(_socket)`) and a few newer options. The values
//! are the system's.

/// Passes the names of one group to the macro `$then`, after the tokens `$first`.
macro_rules! with_names {
    (AF $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            AF_ALG AF_APPLETALK AF_ASH AF_ATMPVC AF_ATMSVC AF_AX25 AF_BRIDGE AF_CAN
            AF_DECnet AF_ECONET AF_INET AF_INET6 AF_IPX AF_IRDA AF_KEY AF_LLC
            AF_NETBEUI AF_NETLINK AF_NETROM AF_PACKET AF_PPPOX AF_QIPCRTR AF_RDS
            AF_ROSE AF_ROUTE AF_SECURITY AF_SNA AF_TIPC AF_UNIX AF_UNSPEC AF_VSOCK
            AF_WANPIPE AF_X25
        }
    };
    (SOCK $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            SOCK_CLOEXEC SOCK_DGRAM SOCK_NONBLOCK SOCK_RAW SOCK_RDM SOCK_SEQPACKET
            SOCK_STREAM
        }
    };
    (MSG $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            MSG_CMSG_CLOEXEC MSG_CONFIRM MSG_CTRUNC MSG_DONTROUTE MSG_DONTWAIT
            MSG_EOR MSG_ERRQUEUE MSG_FASTOPEN MSG_MORE MSG_NOSIGNAL MSG_OOB MSG_PEEK
            MSG_TRUNC MSG_WAITALL
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
            IPPROTO_IGMP IPPROTO_IP IPPROTO_IPIP IPPROTO_IPV6 IPPROTO_MPTCP
            IPPROTO_NONE IPPROTO_PIM IPPROTO_PUP IPPROTO_RAW IPPROTO_ROUTING
            IPPROTO_RSVP IPPROTO_SCTP IPPROTO_TCP IPPROTO_TP IPPROTO_UDP
            IPPROTO_UDPLITE SOL_ALG SOL_CAN_BASE SOL_CAN_RAW SOL_IP SOL_RDS
            SOL_NETLINK SOL_PACKET SOL_SOCKET SOL_TCP SOL_TIPC SOL_UDP
        }
    };
    (SO $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            SO_ACCEPTCONN SO_BINDTODEVICE SO_BINDTOIFINDEX SO_BROADCAST SO_BUSY_POLL
            SO_COOKIE SO_DEBUG SO_DOMAIN SO_DONTROUTE SO_ERROR SO_INCOMING_CPU SO_KEEPALIVE SO_LINGER
            SO_MARK SO_MEMINFO SO_OOBINLINE SO_PASSCRED SO_PASSSEC SO_PEERCRED SO_PEERSEC
            SO_PRIORITY SO_PROTOCOL SO_RCVBUF SO_RCVLOWAT SO_RCVTIMEO SO_REUSEADDR
            SO_REUSEPORT SO_RXQ_OVFL SO_SNDBUF SO_SNDLOWAT SO_SNDTIMEO SO_TIMESTAMP
            SO_TIMESTAMPNS SO_TYPE
        }
    };
    (TCP $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            TCP_CONGESTION TCP_CORK TCP_DEFER_ACCEPT TCP_FASTOPEN TCP_INFO
            TCP_KEEPCNT TCP_KEEPIDLE TCP_KEEPINTVL TCP_LINGER2 TCP_MAXSEG
            TCP_NODELAY TCP_NOTSENT_LOWAT TCP_QUICKACK TCP_SYNCNT TCP_USER_TIMEOUT
            TCP_WINDOW_CLAMP
        }
    };
    (IP $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            IP_ADD_MEMBERSHIP IP_BIND_ADDRESS_NO_PORT IP_DROP_MEMBERSHIP IP_FREEBIND
            IP_HDRINCL IP_MTU IP_MTU_DISCOVER IP_MULTICAST_IF IP_MULTICAST_LOOP
            IP_MULTICAST_TTL IP_OPTIONS IP_PKTINFO IP_RECVERR IP_RECVOPTS
            IP_RECVORIGDSTADDR IP_RECVRETOPTS IP_RECVTOS IP_RECVTTL IP_RETOPTS
            IP_TOS IP_TRANSPARENT IP_TTL
        }
    };
    (IPV6 $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            IPV6_CHECKSUM IPV6_DONTFRAG IPV6_DSTOPTS IPV6_HOPLIMIT IPV6_HOPOPTS
            IPV6_JOIN_GROUP IPV6_LEAVE_GROUP IPV6_MULTICAST_HOPS IPV6_MULTICAST_IF
            IPV6_MULTICAST_LOOP IPV6_NEXTHOP IPV6_PATHMTU IPV6_PKTINFO
            IPV6_RECVDSTOPTS IPV6_RECVHOPLIMIT IPV6_RECVHOPOPTS IPV6_RECVPATHMTU
            IPV6_RECVPKTINFO IPV6_RECVRTHDR IPV6_RECVTCLASS IPV6_RTHDR
            IPV6_RTHDRDSTOPTS IPV6_TCLASS IPV6_UNICAST_HOPS IPV6_V6ONLY
        }
    };
    (UNSIGNED $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            CAN_EFF_FLAG CAN_EFF_MASK CAN_ERR_FLAG CAN_ERR_MASK CAN_RTR_FLAG
            CAN_SFF_MASK INADDR_ALLHOSTS_GROUP INADDR_ANY INADDR_BROADCAST
            INADDR_LOOPBACK INADDR_MAX_LOCAL_GROUP INADDR_NONE INADDR_UNSPEC_GROUP
            VMADDR_CID_ANY VMADDR_CID_HOST VMADDR_PORT_ANY
            VM_SOCKETS_INVALID_VERSION
        }
    };
    (VALUES $then:ident! $($first:tt)*) => {
        $then! { $($first)*
            ALG_OP_DECRYPT ALG_OP_ENCRYPT ALG_OP_SIGN ALG_OP_VERIFY
            ALG_SET_AEAD_ASSOCLEN ALG_SET_AEAD_AUTHSIZE ALG_SET_IV ALG_SET_KEY
            ALG_SET_OP ALG_SET_PUBKEY CAN_BCM CAN_BCM_CAN_FD_FRAME
            CAN_BCM_RX_ANNOUNCE_RESUME CAN_BCM_RX_CHANGED CAN_BCM_RX_CHECK_DLC
            CAN_BCM_RX_DELETE CAN_BCM_RX_FILTER_ID CAN_BCM_RX_NO_AUTOTIMER
            CAN_BCM_RX_READ CAN_BCM_RX_RTR_FRAME CAN_BCM_RX_SETUP CAN_BCM_RX_STATUS
            CAN_BCM_RX_TIMEOUT CAN_BCM_SETTIMER CAN_BCM_STARTTIMER
            CAN_BCM_TX_ANNOUNCE CAN_BCM_TX_COUNTEVT CAN_BCM_TX_CP_CAN_ID
            CAN_BCM_TX_DELETE CAN_BCM_TX_EXPIRED CAN_BCM_TX_READ
            CAN_BCM_TX_RESET_MULTI_IDX CAN_BCM_TX_SEND CAN_BCM_TX_SETUP
            CAN_BCM_TX_STATUS CAN_ISOTP CAN_J1939 CAN_RAW CAN_RAW_FD_FRAMES
            CAN_RAW_FILTER CAN_RAW_JOIN_FILTERS CAN_RAW_LOOPBACK
            CAN_RAW_RECV_OWN_MSGS IOCTL_VM_SOCKETS_GET_LOCAL_CID IPPORT_RESERVED
            IPPORT_USERRESERVED IPV6_RTHDR_TYPE_0 IP_DEFAULT_MULTICAST_LOOP
            IP_DEFAULT_MULTICAST_TTL IP_MAX_MEMBERSHIPS J1939_EE_INFO_NONE
            J1939_EE_INFO_TX_ABORT J1939_FILTER_MAX J1939_IDLE_ADDR
            J1939_MAX_UNICAST_ADDR J1939_NLA_BYTES_ACKED J1939_NLA_PAD J1939_NO_ADDR
            J1939_NO_NAME J1939_NO_PGN J1939_PGN_ADDRESS_CLAIMED
            J1939_PGN_ADDRESS_COMMANDED J1939_PGN_MAX J1939_PGN_PDU1_MAX
            J1939_PGN_REQUEST NETLINK_CRYPTO NETLINK_DNRTMSG NETLINK_FIREWALL
            NETLINK_ADD_MEMBERSHIP NETLINK_DROP_MEMBERSHIP NETLINK_IP6_FW NETLINK_NFLOG
            NETLINK_ROUTE NETLINK_SOCK_DIAG NETLINK_USERSOCK NETLINK_XFRM
            NI_DGRAM NI_MAXHOST NI_MAXSERV NI_NAMEREQD NI_NOFQDN NI_NUMERICHOST
            NI_NUMERICSERV PACKET_BROADCAST PACKET_FASTROUTE PACKET_HOST
            PACKET_IGNORE_OUTGOING PACKET_LOOPBACK PACKET_MULTICAST PACKET_OTHERHOST
            PACKET_OUTGOING PACKET_STATISTICS PF_CAN
            PF_PACKET PF_RDS SCM_CREDENTIALS SCM_J1939_DEST_ADDR SCM_J1939_DEST_NAME
            SCM_J1939_ERRQUEUE SCM_J1939_PRIO SCM_RIGHTS SOMAXCONN SO_J1939_ERRQUEUE
            SO_J1939_FILTER SO_J1939_PROMISC SO_J1939_SEND_PRIO
            SO_VM_SOCKETS_BUFFER_MAX_SIZE SO_VM_SOCKETS_BUFFER_MIN_SIZE
            SO_VM_SOCKETS_BUFFER_SIZE TIPC_ADDR_ID TIPC_ADDR_NAME TIPC_ADDR_NAMESEQ
            TIPC_CFG_SRV TIPC_CLUSTER_SCOPE TIPC_CONN_TIMEOUT
            TIPC_CRITICAL_IMPORTANCE TIPC_DEST_DROPPABLE TIPC_HIGH_IMPORTANCE
            TIPC_IMPORTANCE TIPC_LOW_IMPORTANCE TIPC_MEDIUM_IMPORTANCE
            TIPC_NODE_SCOPE TIPC_PUBLISHED TIPC_SRC_DROPPABLE TIPC_SUBSCR_TIMEOUT
            TIPC_SUB_CANCEL TIPC_SUB_PORTS TIPC_SUB_SERVICE TIPC_TOP_SRV
            TIPC_WAIT_FOREVER TIPC_WITHDRAWN TIPC_ZONE_SCOPE UDPLITE_RECV_CSCOV
            UDPLITE_SEND_CSCOV
        }
    };
}
pub(crate) use with_names;

/// The C names: those of `libc`, and constants that it lacks for Linux.
pub(crate) mod c {
    pub(crate) use libc::*;

    pub(crate) const AF_QIPCRTR: i32 = 42;
    pub(crate) const IPV6_JOIN_GROUP: i32 = IPV6_ADD_MEMBERSHIP;
    pub(crate) const IPV6_LEAVE_GROUP: i32 = IPV6_DROP_MEMBERSHIP;
    pub(crate) const NI_MAXSERV: i32 = 32;
    pub(crate) const ALG_OP_SIGN: i32 = 2;
    pub(crate) const ALG_OP_VERIFY: i32 = 3;
    pub(crate) const ALG_SET_PUBKEY: i32 = 6;
    pub(crate) const CAN_BCM_CAN_FD_FRAME: i32 = 2048;
    pub(crate) const CAN_BCM_RX_ANNOUNCE_RESUME: i32 = 256;
    pub(crate) const CAN_BCM_RX_CHANGED: i32 = 12;
    pub(crate) const CAN_BCM_RX_CHECK_DLC: i32 = 64;
    pub(crate) const CAN_BCM_RX_DELETE: i32 = 6;
    pub(crate) const CAN_BCM_RX_FILTER_ID: i32 = 32;
    pub(crate) const CAN_BCM_RX_NO_AUTOTIMER: i32 = 128;
    pub(crate) const CAN_BCM_RX_READ: i32 = 7;
    pub(crate) const CAN_BCM_RX_RTR_FRAME: i32 = 1024;
    pub(crate) const CAN_BCM_RX_SETUP: i32 = 5;
    pub(crate) const CAN_BCM_RX_STATUS: i32 = 10;
    pub(crate) const CAN_BCM_RX_TIMEOUT: i32 = 11;
    pub(crate) const CAN_BCM_SETTIMER: i32 = 1;
    pub(crate) const CAN_BCM_STARTTIMER: i32 = 2;
    pub(crate) const CAN_BCM_TX_ANNOUNCE: i32 = 8;
    pub(crate) const CAN_BCM_TX_COUNTEVT: i32 = 4;
    pub(crate) const CAN_BCM_TX_CP_CAN_ID: i32 = 16;
    pub(crate) const CAN_BCM_TX_DELETE: i32 = 2;
    pub(crate) const CAN_BCM_TX_EXPIRED: i32 = 9;
    pub(crate) const CAN_BCM_TX_READ: i32 = 3;
    pub(crate) const CAN_BCM_TX_RESET_MULTI_IDX: i32 = 512;
    pub(crate) const CAN_BCM_TX_SEND: i32 = 4;
    pub(crate) const CAN_BCM_TX_SETUP: i32 = 1;
    pub(crate) const CAN_BCM_TX_STATUS: i32 = 8;
    pub(crate) const EAI_ADDRFAMILY: i32 = -9;
    pub(crate) const INADDR_ALLHOSTS_GROUP: u32 = 0xe0000001;
    pub(crate) const INADDR_MAX_LOCAL_GROUP: u32 = 0xe00000ff;
    pub(crate) const INADDR_UNSPEC_GROUP: u32 = 0xe0000000;
    pub(crate) const IOCTL_VM_SOCKETS_GET_LOCAL_CID: i32 = 1977;
    pub(crate) const IPPORT_RESERVED: i32 = 1024;
    pub(crate) const IPPORT_USERRESERVED: i32 = 5000;
    pub(crate) const IPV6_RTHDR_TYPE_0: i32 = 0;
    pub(crate) const IP_MAX_MEMBERSHIPS: i32 = 20;
    pub(crate) const IP_RECVRETOPTS: i32 = 7;
    pub(crate) const PACKET_FASTROUTE: i32 = 6;
    pub(crate) const PACKET_IGNORE_OUTGOING: i32 = 23;
    pub(crate) const PACKET_STATISTICS: i32 = 6;
    // As in asm-generic/socket.h, which every processor of Rust's Linux but MIPS and SPARC uses.
    pub(crate) const SO_BINDTOIFINDEX: i32 = 62;
    pub(crate) const SO_COOKIE: i32 = if cfg!(target_arch = "sparc64") { 0x3b } else { 57 };
    pub(crate) const SO_MEMINFO: i32 = if cfg!(target_arch = "sparc64") { 0x39 } else { 55 };
    pub(crate) const SO_VM_SOCKETS_BUFFER_MAX_SIZE: i32 = 2;
    pub(crate) const SO_VM_SOCKETS_BUFFER_MIN_SIZE: i32 = 1;
    pub(crate) const SO_VM_SOCKETS_BUFFER_SIZE: i32 = 0;
    pub(crate) const TIPC_ADDR_ID: i32 = 3;
    pub(crate) const TIPC_ADDR_NAME: i32 = 2;
    pub(crate) const TIPC_ADDR_NAMESEQ: i32 = 1;
    pub(crate) const TIPC_CFG_SRV: i32 = 0;
    pub(crate) const TIPC_CLUSTER_SCOPE: i32 = 2;
    pub(crate) const TIPC_CONN_TIMEOUT: i32 = 130;
    pub(crate) const TIPC_CRITICAL_IMPORTANCE: i32 = 3;
    pub(crate) const TIPC_DEST_DROPPABLE: i32 = 129;
    pub(crate) const TIPC_HIGH_IMPORTANCE: i32 = 2;
    pub(crate) const TIPC_IMPORTANCE: i32 = 127;
    pub(crate) const TIPC_LOW_IMPORTANCE: i32 = 0;
    pub(crate) const TIPC_MEDIUM_IMPORTANCE: i32 = 1;
    pub(crate) const TIPC_NODE_SCOPE: i32 = 3;
    pub(crate) const TIPC_PUBLISHED: i32 = 1;
    pub(crate) const TIPC_SRC_DROPPABLE: i32 = 128;
    pub(crate) const TIPC_SUBSCR_TIMEOUT: i32 = 3;
    pub(crate) const TIPC_SUB_CANCEL: i32 = 4;
    pub(crate) const TIPC_SUB_PORTS: i32 = 1;
    pub(crate) const TIPC_SUB_SERVICE: i32 = 2;
    pub(crate) const TIPC_TOP_SRV: i32 = 1;
    pub(crate) const TIPC_WAIT_FOREVER: i32 = -1;
    pub(crate) const TIPC_WITHDRAWN: i32 = 2;
    pub(crate) const TIPC_ZONE_SCOPE: i32 = 1;
    pub(crate) const UDPLITE_RECV_CSCOV: i32 = 11;
    pub(crate) const UDPLITE_SEND_CSCOV: i32 = 10;
    pub(crate) const VM_SOCKETS_INVALID_VERSION: u32 = 0xffffffff;
}

/// The option for `struct tcp_info`, if it has the layout of Linux.
pub(crate) const TCP_INFO_OPTION: Option<i32> = Some(c::TCP_INFO);

/// Names of the TCP states in the order of their numbers (include/net/tcp_states.h).
pub(crate) const TCP_STATES: &[&str] = &[
    "",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
];

/// The item for the local address of an IPv4 packet: `struct in_pktinfo`.
pub(crate) const IPV4_PKTINFO: i32 = c::IP_PKTINFO;

/// Items that contain a `struct timeval`.
pub(crate) const TIMEVAL_ITEMS: &[i32] = &[c::SO_TIMESTAMP];

/// Items that contain a `struct timespec`.
pub(crate) const TIMESPEC_ITEMS: &[i32] = &[c::SO_TIMESTAMPNS];
