//! Decrypts private keys: PKCS #8 with PBES2 or PBES1, and OpenSSL's traditional PEM encryption.

use std::io;
use std::path::Path;

use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockCipherDecrypt, BlockModeDecrypt, InnerIvInit, KeyInit};
use md5::Md5;
use pkcs8::EncryptedPrivateKeyInfoRef;
use sha1::Sha1;
use sha1::digest::Digest;
use zeroize::Zeroizing;

use crate::cert::x509::{Invalid, Item, single};
use crate::error::{Reason, in_file};

/// A decrypted key in DER.
pub(crate) type Plain = Zeroizing<Vec<u8>>;

/// Why a key was not decrypted.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The encryption is not supported.
    Unsupported(String),
    /// The structure is invalid.
    Invalid(String),
    /// The password is wrong.
    Password,
}

impl Failure {
    /// Makes the error for a key in a file.
    pub(crate) fn in_file(self, file: &Path) -> io::Error {
        match self {
            Failure::Unsupported(what) => in_file(
                file,
                Reason::UnsupportedKey,
                format_args!(
                    "unsupported encryption of the private key: {what}; \
                     `openssl pkcs8 -topk8 -in OLD -out NEW` converts the key \
                     (with `-provider default -provider legacy` for DES, RC2 and RC4)"
                ),
            ),
            Failure::Invalid(what) => in_file(
                file,
                Reason::BadPem,
                format_args!("cannot parse the encrypted private key: {what}"),
            ),
            Failure::Password => {
                in_file(file, Reason::BadDecrypt, "the password does not decrypt the private key")
            }
        }
    }
}

impl From<Invalid> for Failure {
    fn from(error: Invalid) -> Failure {
        Failure::Invalid(error.to_string())
    }
}

/// `1.2.840.113549.1.5.13`, PBES2 (RFC 8018).
const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
/// `1.2.840.113549.1.5`, the arc of PBES1 (RFC 8018).
const PBES1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05];
/// `1.2.840.113549.1.12.1`, the arc of the password-based encryptions of PKCS #12 (RFC 7292).
const PKCS12: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01];

/// Decrypts an `EncryptedPrivateKeyInfo` (RFC 5958).
pub(crate) fn decrypt_pkcs8(der: &[u8], password: &[u8]) -> Result<Plain, Failure> {
    let what = "the key";
    let [algorithm, data] = single(der, what)?.sequence(what)?[..] else {
        return Err(Failure::Invalid("expected two parts".into()));
    };
    let what = "the encryption algorithm";
    let [oid, parameters] = algorithm.sequence(what)?[..] else {
        return Err(Failure::Invalid("the encryption algorithm: expected two parts".into()));
    };
    let plain = match oid.value {
        PBES2 => decrypt_pbes2(der, password)?,
        [arc @ .., number] if arc == PKCS12 => decrypt_pkcs12(*number, &parameters, data.value, password)?,
        [arc @ .., number] if arc == PBES1 => return Err(Failure::Unsupported(pbes1_name(*number).into())),
        _ => return Err(Failure::Unsupported("an unknown algorithm".into())),
    };
    checked(plain)
}

fn decrypt_pbes2(der: &[u8], password: &[u8]) -> Result<Plain, Failure> {
    use pkcs8::pkcs5::Error as E;
    // The structure has been checked, so that an error is about the parameters.
    let info = EncryptedPrivateKeyInfoRef::try_from(der)
        .map_err(|error| Failure::Unsupported(format!("PBES2 ({error})")))?;
    match info.decrypt(password) {
        Ok(document) => Ok(Zeroizing::new(document.as_bytes().to_vec())),
        Err(pkcs8::Error::EncryptedPrivateKey(
            error @ (E::AlgorithmParametersInvalid { .. } | E::UnsupportedAlgorithm { .. }),
        )) => Err(Failure::Unsupported(format!("PBES2 ({error})"))),
        Err(_) => Err(Failure::Password),
    }
}

/// Decrypts with 3DES and a key that is derived by the method of PKCS #12. `openssl pkcs8 -v1` and
/// `openssl pkcs12` write such keys.
fn decrypt_pkcs12(
    number: u8,
    parameters: &Item<'_>,
    data: &[u8],
    password: &[u8],
) -> Result<Plain, Failure> {
    let what = "the parameters of the encryption";
    let [salt, iterations] = parameters.sequence(what)?[..] else {
        return Err(Failure::Invalid("the parameters of the encryption: expected two parts".into()));
    };
    let iterations = iterations.integer(what)?;
    let iterations = match iterations {
        [first, ..] if *first < 0x80 && iterations.len() <= 4 => {
            iterations.iter().fold(0_u32, |n, byte| n << 8 | u32::from(*byte))
        }
        _ => return Err(Failure::Invalid("the iteration count is out of range".into())),
    };
    let password = bmp_string(password);
    let derive = |id, length| derive_pkcs12(id, &password, salt.value, iterations, length);
    let (key, iv) = match number {
        3 => (derive(1, 24), derive(2, 8)),
        4 => {
            // Two keys: the third is the first.
            let mut key = derive(1, 16);
            key.extend_from_within(..8);
            (key, derive(2, 8))
        }
        1 | 2 => return Err(Failure::Unsupported("PBES1 with RC4".into())),
        _ => return Err(Failure::Unsupported("PBES1 with RC2".into())),
    };
    decrypt_cbc::<des::TdesEde3>(&key, &iv, data)
}

fn pbes1_name(number: u8) -> &'static str {
    match number {
        1 => "PBES1 with MD2 and DES",
        3 => "PBES1 with MD5 and DES",
        4 => "PBES1 with MD2 and RC2",
        6 => "PBES1 with MD5 and RC2",
        10 => "PBES1 with SHA-1 and DES",
        11 => "PBES1 with SHA-1 and RC2",
        _ => "an unknown algorithm",
    }
}

/// Encodes a password as PKCS #12 requires: UTF-16 with a terminating zero.
fn bmp_string(password: &[u8]) -> Plain {
    // OpenSSL takes a password that is not UTF-8 as Latin-1.
    let text: Zeroizing<String> = Zeroizing::new(match std::str::from_utf8(password) {
        Ok(text) => text.to_owned(),
        Err(_) => password.iter().copied().map(char::from).collect(),
    });
    Zeroizing::new(text.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect())
}

/// Derives a key (`id` 1) or an initialization vector (`id` 2) with SHA-1: RFC 7292, appendix B.2.
fn derive_pkcs12(id: u8, password: &[u8], salt: &[u8], iterations: u32, length: usize) -> Plain {
    const BLOCK: usize = 64;
    let fill = |bytes: &[u8]| -> Plain {
        let length = bytes.len().div_ceil(BLOCK) * BLOCK;
        Zeroizing::new(bytes.iter().copied().cycle().take(length).collect())
    };
    let mut input = fill(salt);
    input.extend_from_slice(&fill(password));
    let mut derived = Zeroizing::new(Vec::new());
    while derived.len() < length {
        let mut hash = Zeroizing::new(
            Sha1::new().chain_update([id; BLOCK]).chain_update(&input[..]).finalize().to_vec(),
        );
        for _ in 1..iterations {
            *hash = Sha1::digest(&hash[..]).to_vec();
        }
        derived.extend_from_slice(&hash);
        let addend: Plain = Zeroizing::new(hash.iter().copied().cycle().take(BLOCK).collect());
        for block in input.chunks_exact_mut(BLOCK) {
            // block = (block + addend + 1) mod 2^512.
            let mut carry = 1_u16;
            for (byte, add) in block.iter_mut().zip(&addend[..]).rev() {
                carry += u16::from(*byte) + u16::from(*add);
                *byte = carry as u8;
                carry >>= 8;
            }
        }
    }
    derived.truncate(length);
    derived
}

/// Decrypts a key with a `DEK-Info` header (RFC 1421), OpenSSL's traditional format.
pub(crate) fn decrypt_traditional(dek_info: &str, data: &[u8], password: &[u8]) -> Result<Plain, Failure> {
    let (cipher, iv) = dek_info.split_once(',').unwrap_or((dek_info, ""));
    let (cipher, iv) = (cipher.trim().to_ascii_uppercase(), iv.trim());
    let (key_length, iv_length) = match cipher.as_str() {
        "AES-128-CBC" => (16, 16),
        "AES-192-CBC" => (24, 16),
        "AES-256-CBC" => (32, 16),
        "DES-EDE3-CBC" => (24, 8),
        _ => return Err(Failure::Unsupported(cipher)),
    };
    let iv = hexadecimal(iv).filter(|iv| iv.len() == iv_length);
    let iv = iv.ok_or_else(|| Failure::Invalid("invalid initialization vector in DEK-Info".into()))?;
    let key = bytes_to_key(password, &iv[..8], key_length);
    checked(match cipher.as_str() {
        "AES-128-CBC" => decrypt_cbc::<aes::Aes128>(&key, &iv, data)?,
        "AES-192-CBC" => decrypt_cbc::<aes::Aes192>(&key, &iv, data)?,
        "AES-256-CBC" => decrypt_cbc::<aes::Aes256>(&key, &iv, data)?,
        _ => decrypt_cbc::<des::TdesEde3>(&key, &iv, data)?,
    })
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    digits.collect()
}

/// Derives a key with MD5 and one iteration, as OpenSSL's `EVP_BytesToKey` does for PEM files.
fn bytes_to_key(password: &[u8], salt: &[u8], length: usize) -> Plain {
    let mut key = Zeroizing::new(Vec::new());
    let mut hash = Zeroizing::new(Vec::new());
    while key.len() < length {
        *hash = Md5::new()
            .chain_update(&hash[..])
            .chain_update(password)
            .chain_update(salt)
            .finalize()
            .to_vec();
        key.extend_from_slice(&hash);
    }
    key.truncate(length);
    key
}

fn decrypt_cbc<C: BlockCipherDecrypt + KeyInit>(
    key: &[u8],
    iv: &[u8],
    data: &[u8],
) -> Result<Plain, Failure> {
    let cipher = C::new_from_slice(key).map_err(|_| Failure::Invalid("invalid key length".into()))?;
    let decryptor = cbc::Decryptor::inner_iv_slice_init(cipher, iv)
        .map_err(|_| Failure::Invalid("invalid initialization vector".into()))?;
    let mut buffer = Zeroizing::new(data.to_vec());
    let length = decryptor.decrypt_padded::<Pkcs7>(&mut buffer).map_err(|_| Failure::Password)?.len();
    buffer.truncate(length);
    Ok(buffer)
}

/// Checks that decrypted data is DER. A wrong password passes the check of the padding with a
/// probability of 1/256.
fn checked(plain: Plain) -> Result<Plain, Failure> {
    let is_der = single(&plain, "the key").is_ok_and(|item| item.sequence("the key").is_ok());
    if is_der { Ok(plain) } else { Err(Failure::Password) }
}
