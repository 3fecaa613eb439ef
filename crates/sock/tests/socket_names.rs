//! The promise: names of services, protocols, hosts and interfaces are those
//! Python finds. Without Python the comparison is skipped with a message.
#![cfg(unix)]

use std::process::Command;

use sock::{AF_INET, AF_INET6, NI_NUMERICHOST, NI_NUMERICSERV, ToAddress};

/// What an expression over the module `socket` prints, or `None` if it raises.
fn python(expression: &str) -> Option<Option<String>> {
    let script = format!("import socket\ntry: print({expression})\nexcept OSError: print('raised')");
    let Ok(output) = Command::new("python3").args(["-c", &script]).output() else {
        eprintln!("no python3: {expression} is not compared");
        return None;
    };
    let text = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    Some((text != "raised").then_some(text))
}

#[track_caller]
fn same(expression: &str, ours: std::io::Result<impl ToString>) {
    if let Some(theirs) = python(expression) {
        assert_eq!(ours.ok().map(|value| value.to_string()), theirs, "{expression}");
    }
}

#[test]
fn services_and_protocols() {
    for name in ["http", "ssh", "domain", "no such service"] {
        same(&format!("socket.getservbyname({name:?})"), sock::getservbyname(name, None));
        same(&format!("socket.getservbyname({name:?}, 'udp')"), sock::getservbyname(name, "udp"));
    }
    for port in [22, 53, 80, 4] {
        same(&format!("socket.getservbyport({port})"), sock::getservbyport(port, None));
        same(&format!("socket.getservbyport({port}, 'tcp')"), sock::getservbyport(port, "tcp"));
    }
    for name in ["tcp", "udp", "icmp", "no such protocol"] {
        same(&format!("socket.getprotobyname({name:?})"), sock::getprotobyname(name));
    }
}

#[test]
fn hosts() {
    for host in ["", "127.1", "localhost", "<broadcast>", "no.such.name.invalid"] {
        same(&format!("socket.gethostbyname({host:?})"), sock::gethostbyname(host));
    }
    same("socket.gethostname()", sock::gethostname());
    let entry = |host: sock::HostEntry| {
        let quoted = |names: Vec<String>| {
            let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
            format!("[{}]", names.join(", "))
        };
        let addresses = host.addresses.iter().map(ToString::to_string).collect();
        format!("('{}', {}, {})", host.name, quoted(host.aliases), quoted(addresses))
    };
    for host in ["127.0.0.1", "localhost", "no.such.name.invalid", "192.0.2.1"] {
        same(&format!("socket.gethostbyname_ex({host:?})"), sock::gethostbyname_ex(host).map(entry));
        same(&format!("socket.gethostbyaddr({host:?})"), sock::gethostbyaddr(host).map(entry));
        same(&format!("socket.getfqdn({host:?})"), sock::getfqdn(host));
    }
    for here in ["", "0.0.0.0", "::", " "] {
        same(&format!("socket.getfqdn({here:?})"), sock::getfqdn(here));
    }
    let numeric = NI_NUMERICHOST | NI_NUMERICSERV;
    let name = |(host, service): (String, String)| format!("{host} {service}");
    let v4 = ("127.0.0.1", 80).to_address(AF_INET).unwrap();
    let v6 = ("::1", 80).to_address(AF_INET6).unwrap();
    same(
        &format!("*socket.getnameinfo(('127.0.0.1', 80), {numeric})"),
        sock::getnameinfo(&v4, numeric).map(name),
    );
    same(
        &format!("*socket.getnameinfo(('::1', 80), {numeric})"),
        sock::getnameinfo(&v6, numeric).map(name),
    );
    assert!(sock::getnameinfo(&sock::Address::None, 0).is_err());
}

#[test]
fn interfaces() {
    same("socket.if_nameindex()", sock::if_nameindex().map(|list| python_list(&list)));
    same("socket.if_nametoindex('lo')", sock::if_nametoindex("lo"));
    same("socket.if_nametoindex('no such')", sock::if_nametoindex("no such"));
    same("socket.if_indextoname(1)", sock::if_indextoname(1));
    assert!(sock::if_indextoname(0).is_err() && sock::if_nametoindex("a\0b").is_err());
}

fn python_list(list: &[(u32, String)]) -> String {
    let items: Vec<_> = list.iter().map(|(index, name)| format!("({index}, '{name}')")).collect();
    format!("[{}]", items.join(", "))
}
